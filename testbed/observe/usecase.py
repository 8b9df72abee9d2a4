"""Any topology and any commands as a use case: what `testbed observe` runs.

Its bundle is an ordinary one.  What sets it up has ended and servers are ready before the clock
starts; then all commands run at once, and the trial ends with the last of them, or after
`duration`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from testbed.errors import UserError
from testbed.observe.commands import Command, Program, how_it_ended, serve
from testbed.run import Parameters, Recorder, UseCase, parameter

_PROGRESS_S = 0.5
_DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class ObserveParameters(Parameters):
    """What `testbed observe` was given."""

    file: str = parameter("", help="Python file with the topology")
    topology: str = parameter("", help="which of its topologies (a class, or a key of `topos`)")
    arguments: tuple[str, ...] = parameter((), help="arguments of the topology, KEY=VALUE")
    setup: tuple[str, ...] = parameter((), help="NODE PROGRAM..., one after the other, first")
    servers: tuple[str, ...] = parameter((), help="NODE PROGRAM..., ready before the commands")
    commands: tuple[str, ...] = parameter((), help="NODE PROGRAM..., all at once")
    at: tuple[str, ...] = parameter((), help="TIME CHANGE..., of the network meanwhile")
    duration: float | None = parameter(
        None, unit="s", help="commands are ended after this", minimum=0.1, maximum=_DAY_S
    )


class Observe(UseCase[ObserveParameters]):
    """Commands on a topology, observed."""

    name = "observe"
    title = "Commands on a topology, observed"
    summary = (
        "The topology of a file, and commands run in its nodes (see Parameters), while "
        "interfaces, queues and sockets were sampled."
    )
    Parameters = ObserveParameters
    variants: ClassVar = {"observed": "the commands as they were given"}
    repeats = 1
    quick_repeats = 1
    trial_limit_s = _DAY_S
    listed = False

    def topology(self, params: ObserveParameters) -> Any:
        """The topology of the file; raises `UserError` also for commands it has no node for."""
        from testbed.network import load, schedule

        if not params.file:
            raise UserError("no file with a topology is given", remedy="see `testbed observe -h`")
        path = Path(params.file)
        factory = load.load(path, params.topology)
        topo = load.build(factory, path, load.arguments(params.arguments))
        for line in params.at:
            schedule.step(line)
        _commands((*params.setup, *params.servers), topo.nodes())
        if not _commands(params.commands, topo.nodes()):
            raise UserError("no command is given", remedy="write it after --: -- h1 ping -c 3 h2")
        return topo

    async def run(self, net: Any, params: ObserveParameters, record: Recorder) -> None:
        """Set-up, servers, then commands; raises `NodeProcessError` when one of them fails."""
        from testbed.network import schedule

        nodes = list(net)
        changes = schedule.parse(params.at, net, folder=Path(params.file).parent)
        for number, command in enumerate(_commands(params.setup, nodes), 1):
            await _run(Program(command, net, record, _log_name("setup", number, command)), record)
        for number, command in enumerate(_commands(params.servers, nodes), 1):
            record.progress(0, f"waiting for {command}")
            await serve(command, net, record, _log_name("server", number, command))
        record.start_clock()
        changes.follow(record)
        programs = [
            Program(command, net, record, _log_name("command", number, command))
            for number, command in enumerate(_commands(params.commands, nodes), 1)
        ]
        ends = [asyncio.ensure_future(_run(program, record)) for program in programs]
        await self._last(ends, params.duration, record)

    async def _last(
        self, ends: Sequence[asyncio.Future[None]], limit_s: float | None, record: Recorder
    ) -> None:
        """Wait for all commands; the first that fails ends it, and so does the time."""
        waiting: set[asyncio.Future[None]] = set(ends)
        try:
            while waiting and (limit_s is None or record.now() < limit_s):
                left = _PROGRESS_S if limit_s is None else min(_PROGRESS_S, limit_s - record.now())
                done, waiting = await asyncio.wait(
                    waiting, timeout=max(0.0, left), return_when=asyncio.FIRST_EXCEPTION
                )
                for each in done:
                    each.result()
                record.progress(record.now() / limit_s if limit_s else 0.0, "running")
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


async def _run(program: Program, record: Recorder) -> None:
    began = record.now()
    status = await program.wait()
    record.event("command", command=str(program.command), began_s=began, status=status)
    if status:
        raise program.failure(how_it_ended(status))
    record.result("command.time", record.now() - began, "s", str(program.command))


def _commands(lines: Sequence[str], nodes: Sequence[str]) -> list[Command]:
    return [Command.parse(line, nodes) for line in lines]


def _log_name(kind: str, number: int, command: Command) -> str:
    return f"{kind}{number}-{command.node}-{Path(command.argv[0]).name}"
