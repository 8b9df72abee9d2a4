"""A saved state goes from one Xen host to another, over the network between them.

With `XenVm.save` before and `XenVm.restore` after it, a domain moves; it stands still meanwhile.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import ExperimentError
from testbed.guests.xen.host import Stream, XenHost

_PORT = 7470
# compressed, because a guest's memory is mostly zero and a translated host's network is slow
_RECEIVE = 'nc.openbsd -d -l "$1" | lz4 -d -c >"$2"; stat -c %s "$2"'
_LISTENS = f'until grep -qs ":{_PORT:04X} 0*:0000 0A" /proc/net/tcp*; do sleep 0.05; done'
_MOST = 32  # digits of a number of bytes


@dataclass(frozen=True)
class Copied:
    """What it took: `bytes` of the file, and `seconds` from the order to the last one's arrival."""

    bytes: int
    seconds: float


async def copy(
    path: Path, source: XenHost, target: XenHost, address: str, *, limit_s: float = 600.0
) -> Copied:
    """Copy the file `path` of `source` to the same place at `target`.

    `address` is the target's, as the source reaches it; it takes the file at TCP port 7470.
    Raises `ExperimentError`, and leaves nothing at the target, when it does not arrive whole.
    """
    try:
        async with await target.stream(_RECEIVE, str(_PORT), str(path)) as receiving:
            await target.run(_LISTENS)
            began = time.monotonic()
            size = int(await source.run(_send(address, path), limit_s=limit_s))
            arrived = await _told(receiving)
            if arrived != size:
                raise ExperimentError(f"{arrived} of {size} bytes arrived")
            return Copied(size, time.monotonic() - began)
    except BaseException as error:
        await target.run(f"rm -f {shlex.quote(str(path))}")
        if isinstance(error, ExperimentError):
            raise ExperimentError(
                f"copy of {path} from {source.name} to {target.name} at {address}: {error.message}"
            ) from error
        raise


def _send(address: str, path: Path) -> str:
    file = shlex.quote(str(path))
    send = f"nc.openbsd -N {shlex.quote(address)} {_PORT}"
    return f"lz4 -q -1 -c {file} | {send} && stat -c %s {file}"


async def _told(receiving: Stream) -> int:
    """The number that the receiver says when it has everything."""
    loop = asyncio.get_running_loop()
    said = b""
    while not said.endswith(b"\n") and (data := await loop.sock_recv(receiving.end, _MOST)):
        said += data
    return int(said or b"0")
