"""The `testbed` command: gathers the subcommands and turns errors into one line and a status.

Modules of commands are imported when one of their commands is called or listed, so that a
command starts quickly.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

import click

from testbed import __version__
from testbed.errors import TestbedError

COMMANDS = {
    "bench": "testbed.cli.bench",
    "compare": "testbed.cli.report",
    "doctor": "testbed.cli.doctor",
    "exec": "testbed.cli.execute",
    "image": "testbed.cli.image",
    "list": "testbed.cli.run",
    "observe": "testbed.cli.observe",
    "report": "testbed.cli.report",
    "reproduce": "testbed.cli.run",
    "run": "testbed.cli.run",
    "show": "testbed.cli.run",
    "sweep": "testbed.cli.run",
    "topo": "testbed.cli.topo",
    "vm": "testbed.cli.vm",
    "vnf": "testbed.cli.vnf",
}


class Commands(click.Group):
    """A group whose commands live in modules that are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in alphabetical order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command called `cmd_name`."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name])
        found: click.Command = next(c for c in module.commands if c.name == cmd_name)
        return found


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="testbed")
@click.option("--verbose", "-v", is_flag=True, help="Say what is being done.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(verbose: bool, debug: bool) -> None:
    """LiquidNet: real kernels, real protocols and real packets in a box."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="testbed: %(message)s"
    )


def main(argv: list[str] | None = None) -> None:
    """Entry point: run a command; an error ends in one line on standard error and its status."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        status = cli.main(arguments, prog_name="testbed", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print("testbed: interrupted", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (TestbedError, OSError) as error:
        sys.exit(_explain(error, "--debug" in arguments))
    sys.exit(status if isinstance(status, int) else 0)


def _explain(error: Exception, debug: bool) -> int:
    if debug:
        raise error
    for line in str(error).splitlines() or [""]:
        print(f"testbed: {line}", file=sys.stderr)
    status: Any = getattr(error, "exit_status", 1)
    return int(status)


if __name__ == "__main__":
    main()
