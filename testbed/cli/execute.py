"""`testbed exec`: a command, or a script of the user's own, in a sandbox."""

from __future__ import annotations

import os
import sys

import click


@click.command("exec", context_settings={"ignore_unknown_options": True})
@click.option("--uplink", is_flag=True, help="Let it reach this machine's network.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(command: tuple[str, ...], uplink: bool) -> None:
    """Run COMMAND in a new sandbox, e.g. `testbed exec python my_network.py`.

    Everything it starts is gone when it ends.  The exit status is the command's.
    """
    words = [
        sys.executable if word == "python" and i == 0 else word for i, word in enumerate(command)
    ]
    options = ["--uplink"] if uplink else []
    os.execv(sys.executable, [sys.executable, "-m", "testbed.sandbox", *options, "--", *words])


commands = [execute]
