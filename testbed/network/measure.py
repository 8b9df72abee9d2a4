"""Short measurements between two nodes by sockets of our own: one-way delay, loss, TCP's rate.

Both ends are this process's, each socket in its node's namespace, so one clock times them and
no program is started.  What is sent and how much of it does not depend on what comes back, except
for TCP's own acknowledging and repeating.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from testbed.errors import ExperimentError

_STAMP = struct.Struct("!Iq")
_CHUNK = 1 << 18
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h
_TIMESPEC = struct.Struct("@ll")
_BUSY_SHARE = 0.85  # of a processor: above it, it is us who limit the rate


class Way(NamedTuple):
    """From an address of one node to an address of another (a node, its address, both ends)."""

    source_node: Any
    source: str
    target_node: Any
    target: str

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET or AF_INET6."""
        return socket.AF_INET6 if ":" in self.target else socket.AF_INET


class Passage(NamedTuple):
    """What became of datagrams: how many were sent, and how long those that came were under way."""

    sent: int
    delays_s: list[float]


def _socket(node: Any, family: int, kind: int, address: str) -> socket.socket:
    if node.stack_elsewhere:
        raise ExperimentError(
            f"{node.name} is a machine of its own, and its sockets are not ours",
            remedy="run a program in it",
        )
    with node.netns:
        made = socket.socket(family, kind)
    try:
        made.bind((address, 0))
    except OSError:
        made.close()
        raise
    return made


@contextlib.contextmanager
def _pair(way: Way) -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        _socket(way.source_node, way.family, socket.SOCK_DGRAM, way.source) as sender,
        _socket(way.target_node, way.family, socket.SOCK_DGRAM, way.target) as receiver,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        receiver.setblocking(False)
        sender.setblocking(False)
        sender.connect((way.target, receiver.getsockname()[1]))
        yield sender, receiver


async def passage(way: Way, *, count: int, spacing_s: float, wait_s: float) -> Passage:
    """Send `count` small datagrams and wait up to `wait_s` for the last of them."""
    delays: list[float] = []
    with _pair(way) as (sender, receiver):
        for number in range(count):
            with contextlib.suppress(OSError):  # a full queue, or a refusal: it is lost
                sender.send(_STAMP.pack(number, time.time_ns()))
            await asyncio.sleep(spacing_s)
            delays += _arrived(receiver)
        deadline = time.monotonic() + wait_s
        while len(delays) < count and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
            delays += _arrived(receiver)
    return Passage(count, delays)


def _arrived(receiver: socket.socket) -> list[float]:
    """Delays of the datagrams that wait; the kernel says when each one arrived."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            data, ancillary, _flags, _sender = receiver.recvmsg(64, 128)
            arrived = time.time_ns()
            for _level, kind, value in ancillary:
                if kind == _SO_TIMESTAMPNS:
                    seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                    arrived = seconds * 1_000_000_000 + nanoseconds
            found.append((arrived - _STAMP.unpack_from(data)[1]) / 1e9)
    return found


class Transfer(NamedTuple):
    """TCP's goodput in bit/s, and whether this machine's processor was what limited it."""

    goodput_bps: float
    limited_by_us: bool


def transfer(way: Way, *, seconds: float) -> Transfer:
    """Send by one TCP connection for `seconds` and half of it before, which does not count.

    Raises `ExperimentError` where no connection comes about or nothing arrives.
    """
    with _socket(way.target_node, way.family, socket.SOCK_STREAM, way.target) as listener:
        listener.listen(1)
        listener.settimeout(3)
        sender = _socket(way.source_node, way.family, socket.SOCK_STREAM, way.source)
        with sender:
            sender.settimeout(3)
            _choose_congestion_control(sender)
            try:
                sender.connect(listener.getsockname()[:2])
                receiver, _address = listener.accept()
            except OSError as error:
                raise ExperimentError(f"no connection: {error.strerror or error}") from error
            with receiver:
                return _timed(sender, receiver, seconds)


def _choose_congestion_control(sender: socket.socket) -> None:
    """Cubic or Reno, as on most machines; not BBR, whose rate over a shaper is another matter."""
    for name in (b"cubic", b"reno"):
        with contextlib.suppress(OSError):
            sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
            return


def _timed(sender: socket.socket, receiver: socket.socket, seconds: float) -> Transfer:
    stop = threading.Event()
    writer = threading.Thread(target=_write, args=(sender, stop), daemon=True)
    writer.start()
    try:
        receiver.settimeout(5)
        began = time.monotonic()
        first, last = began + seconds / 2, began + 1.5 * seconds
        counted, since, until = 0, 0.0, 0.0
        cpu = 0.0
        buffer = bytearray(_CHUNK)
        while until < last:
            size = receiver.recv_into(buffer)
            until = time.monotonic()
            if since:
                counted += size
            elif until >= first:
                since, cpu = until, time.process_time()
    except OSError as error:
        raise ExperimentError(f"the transfer stopped: {error.strerror or error}") from error
    finally:
        stop.set()
        sender.shutdown(socket.SHUT_RDWR)
        receiver.close()
        writer.join()
    busy = (time.process_time() - cpu) / (until - since)
    return Transfer(counted * 8 / (until - since), busy > _BUSY_SHARE)


def _write(sender: socket.socket, stop: threading.Event) -> None:
    data = bytes(_CHUNK)
    sender.settimeout(None)
    with contextlib.suppress(OSError):  # the reader has what it wants and hangs up
        while not stop.is_set():
            sender.sendall(data)
