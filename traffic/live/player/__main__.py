"""`python -m traffic.live.player`, and the program of the archive that guests get."""

from traffic.live.player.program import main, parser
from traffic.program import run

run(parser(), main)
