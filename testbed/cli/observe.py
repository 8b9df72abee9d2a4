"""`testbed observe FILE.py -- NODE COMMAND`: run commands on a topology and watch all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from testbed.cli._running import end, facts_of, observe_options, run_options, run_planned, tell
from testbed.cli._terminal import print_json


@click.command("observe")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.py")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="-- NODE COMMAND...")
@click.option("--class", "topology", default="", metavar="NAME",
              help="Which topology of the file (see its `topos`).")  # fmt: skip
@click.option("--arg", "arguments", multiple=True, metavar="KEY=VALUE",
              help="Argument of the topology.")  # fmt: skip
@click.option("--before", "setup", multiple=True, metavar="'NODE COMMAND'",
              help="Something to be done first (h1 sysctl -w ...).")  # fmt: skip
@click.option("--with", "servers", multiple=True, metavar="'NODE COMMAND'",
              help="A server that is to listen before the commands start.")  # fmt: skip
@click.option("--at", multiple=True, metavar="'TIME CHANGE'",
              help="What happens to the network meanwhile (2s link h1 s1 down).")  # fmt: skip
@click.option("--every", default="50ms", show_default=True, metavar="INTERVAL",
              help="How often to sample, 10ms or more.")  # fmt: skip
@click.option("--duration", metavar="TIME", help="End the commands after this long (10s).")
@observe_options
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def observe_command(
    file: Path,
    words: tuple[str, ...],
    topology: str,
    arguments: tuple[str, ...],
    setup: tuple[str, ...],
    servers: tuple[str, ...],
    at: tuple[str, ...],
    every: str,
    duration: str | None,
    pcap: tuple[str, ...],
    ring: str,
    snap: int,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Run commands in the nodes of the topology in FILE.py, and record what happens.

    Commands go after `--`, each NODE PROGRAM ARGUMENTS..., parted by `,,` and run at once.  A
    node's name among the arguments stands for its address:

        testbed observe net.py --with "h2 iperf3 -s" -- h1 iperf3 -c h2 ,, h3 ping -c 9 h2
    """
    import shlex

    from testbed.observe.commands import split
    from testbed.observe.settings import Settings
    from testbed.observe.usecase import Observe
    from testbed.run.runner import plan

    settings = Settings.parse(every=every, pcap=pcap, ring=ring, snap=snap)
    changes = {
        "file": str(file.absolute()),
        "topology": topology,
        "arguments": arguments,
        "setup": setup,
        "servers": servers,
        "at": at,
        "commands": [shlex.join(each) for each in split(words)] if words else [],
        "duration": duration,
    }
    planned = plan(Observe(), changes=changes, observe=settings, **options)
    bundle, published = run_planned(planned, debug)
    if as_json:
        print_json(facts_of(bundle, published))
    else:
        tell(bundle, published)
    end(bundle)


commands = [observe_command]
