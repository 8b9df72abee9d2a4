"""A machine's state in a file: one line that says of which machine, then QEMU's migration stream.

Memory that is zero takes no room in it.  The state can be taken up only by a machine with the
same hardware and image, and by a QEMU that knows the machine's version.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import IO, Any

from testbed.errors import ExperimentError, ParameterError
from testbed.guests.machine import Machine
from testbed.guests.qemu.monitor import Monitor

_FORMAT = "liquidnet-machine-1"
_DESCRIPTOR = "state"
_ENDED = ("completed", "failed", "cancelled")
_LIMIT_S = 120.0
_WITH_EVENTS = {"capabilities": [{"capability": "events", "state": True}]}


def facts(machine: Machine) -> dict[str, Any]:
    """What must be the same where a state is taken up."""
    return {
        "format": _FORMAT,
        "image": machine.image.kernel.parent.name,
        "memory_mb": machine.memory_mb,
        "macs": list(machine.macs),
        "cpus": machine.cpus,
        "accelerator": machine.accelerator,
        "display": machine.display is not None,
    }


async def save(monitor: Monitor, machine: Machine, path: Path) -> None:
    """Stop the machine and write its state to a file; it stands still from there on.

    Raises `ExperimentError` when that fails; there is no file then, and the machine goes on.
    """
    try:
        with path.open("wb") as file:
            file.write(json.dumps(facts(machine)).encode() + b"\n")
            file.flush()
            await monitor.execute("stop")
            await monitor.execute("migrate-set-capabilities", _WITH_EVENTS)
            await monitor.execute("migrate-set-parameters", {"max-bandwidth": 1 << 40})
            await _carry(monitor, "migrate", file)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if monitor.alive:
            await monitor.execute("cont")
        if isinstance(error, OSError):
            raise ExperimentError(f"saving {machine.name} to {path}: {error.strerror}") from error
        raise


def open_for(machine: Machine, path: Path) -> IO[bytes]:
    """A saved state, to be read from where QEMU's stream begins.

    Raises `ParameterError` where there is none, or one of another machine.
    """
    remedy = "save one from such a machine"
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise ParameterError(f"saved state {path}: {error.strerror}", remedy=remedy) from error
    try:
        found = _header(file)
        wanted = facts(machine)
        differing = [key for key in wanted if found.get(key) != wanted[key]]
        if found.get("format") != _FORMAT:
            raise ParameterError(f"{path} is no saved state", remedy=remedy)
        if differing:
            raise ParameterError(
                f"saved state {path} is of a machine with another {differing[0]} "
                f"({found.get(differing[0])}, not {wanted[differing[0]]})",
                remedy=remedy,
            )
    except BaseException:
        file.close()
        raise
    return file


async def take_up(monitor: Monitor, file: IO[bytes]) -> None:
    """Let a QEMU that waits for a guest have the one in the file; it runs afterwards.

    Raises `ExperimentError` when the state is not whole.
    """
    await monitor.execute("migrate-set-capabilities", _WITH_EVENTS)
    await _carry(monitor, "migrate-incoming", file)
    if (await monitor.execute("query-status"))["status"] != "running":
        await monitor.execute("cont")


async def _carry(monitor: Monitor, command: str, file: IO[bytes]) -> None:
    seen = len(monitor.events)
    await monitor.hand_over(file, _DESCRIPTOR)
    await monitor.execute(command, {"uri": f"fd:{_DESCRIPTOR}"})
    async with asyncio.timeout(_LIMIT_S):
        event = await monitor.event(
            lambda event: event.name == "MIGRATION" and event.data["status"] in _ENDED, since=seen
        )
    if event.data["status"] != "completed":
        said = await monitor.execute("query-migrate")
        raise ExperimentError(
            f"state of {monitor.name}: {said.get('error-desc', event.data['status'])}"
        )


def _header(file: IO[bytes]) -> dict[str, Any]:
    """The first line, read to its end and no further."""
    line = bytearray()
    while (byte := file.read(1)) and byte != b"\n" and len(line) < 4096:
        line += byte
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
