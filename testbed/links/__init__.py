"""How does a link behave?  One specification, several engines that give it the same meaning.

LinkSpec            what one direction of a link does to packets
Engines             chooses and holds the engines of one network
Wire                two ports that an engine joins
DirectionReport     what one direction did: offered, delivered, lost, dropped, lag
WorkerStatus        what an engine's process is and has used
calibrate           delivered against configured, measured for a grid of specifications
"""

from testbed.links.calibrate import calibrate
from testbed.links.engine import DirectionReport, Engine, Specs, Wire, WorkerStatus
from testbed.links.engines import Choice, Engines
from testbed.links.histogram import Histogram
from testbed.links.spec import LinkSpec

__all__ = [
    "Choice",
    "DirectionReport",
    "Engine",
    "Engines",
    "Histogram",
    "LinkSpec",
    "Specs",
    "Wire",
    "WorkerStatus",
    "calibrate",
]
