"""The connections that memory travels in, and what the kernel counts of them.

One connection is made here and its ends are handed to the two QEMUs.  For several (multifd) QEMU
takes no descriptors: each QEMU makes them in its own namespace, and duplicates are taken of the
source's (pidfd_getfd), so that they can be counted, and ended, all the same.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import ctypes
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from testbed.errors import ExperimentError, FeatureError
from testbed.guests.migration.options import MigrationOptions
from testbed.guests.qemu.vm import QemuVm
from testbed.mptcp import sockets as mptcp
from testbed.mptcp.counters import TCP_INFO, connection_info

_DESCRIPTOR = "migration"
_BYTES_ACKED = 34  # place of tcpi_bytes_acked in TCP_INFO
_TCP_NOTSENT_LOWAT = 25
# What waits in the source's kernel is what a guest that is stopped, or a page that is asked for,
# waits for: enough for the network to be busy, and no more.
_WAITING = 256 << 10
_SYS_PIDFD_GETFD = 438
_POLL_S = 0.01
_CONNECT_LIMIT_S = 20.0

_libc = ctypes.CDLL(None, use_errno=True)


class Channel(abc.ABC):
    """The way from one QEMU to an address in the namespace of another."""

    def __init__(
        self, source: QemuVm, target: QemuVm, address: str, options: MigrationOptions
    ) -> None:
        self._source, self._target = source, target
        self._address, self._options = address, options
        self.ends: list[socket.socket] = []

    @abc.abstractmethod
    async def listen(self) -> str:
        """Make ready; what the target's QEMU calls it."""

    @abc.abstractmethod
    async def outgoing(self) -> str:
        """What the source's calls it, once the target's has been told."""

    @abc.abstractmethod
    async def adopt(self) -> None:
        """Take hold of the source's connections, which may be on their way."""

    @property
    def acknowledged(self) -> int:
        """Bytes that have arrived, by the kernel of the source."""
        return sum(_acknowledged(end) for end in self.ends)

    def cut(self) -> None:
        """End all connections, so that no QEMU waits for one."""
        for end in self.ends:
            with contextlib.suppress(OSError):  # the other side was first
                end.shutdown(socket.SHUT_RDWR)


@contextlib.asynccontextmanager
async def opened(
    source: QemuVm, target: QemuVm, address: str, options: MigrationOptions
) -> AsyncIterator[Channel]:
    """The channel from `source` to an address in the namespace of `target`."""
    kind = _Made if options.multifd else _HandedOver
    channel = kind(source, target, address, options)
    try:
        yield channel
    finally:
        for end in channel.ends:
            end.close()


class _HandedOver(Channel):
    """One connection, made here."""

    async def listen(self) -> str:
        with self._target.namespace:
            listener = self._socket()
        with self._source.namespace:
            end = self._socket()
        self.ends.append(end)
        with listener:
            there = await self._connect(end, listener)
        _tune(end, self._options)
        with there:  # the target's is QEMU's alone: it ends with that QEMU
            await self._target.monitor.hand_over(there, _DESCRIPTOR)
        await self._source.monitor.hand_over(end, _DESCRIPTOR)
        return f"fd:{_DESCRIPTOR}"

    async def _connect(self, end: socket.socket, listener: socket.socket) -> socket.socket:
        """The target's end."""
        listener.bind((self._address, 0))
        listener.listen(1)
        for ours in (listener, end):
            ours.setblocking(False)
        accepting = asyncio.create_task(asyncio.get_running_loop().sock_accept(listener))
        try:
            async with asyncio.timeout(_CONNECT_LIMIT_S):
                await _connect(end, listener.getsockname())
                return (await accepting)[0]
        except TimeoutError as error:
            raise ExperimentError("no way to this address") from error
        finally:
            accepting.cancel()

    def _socket(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        return mptcp.make(family) if self._options.mptcp else socket.socket(family)

    async def outgoing(self) -> str:
        return f"fd:{_DESCRIPTOR}"

    async def adopt(self) -> None:
        """They are held from the beginning."""


class _Made(Channel):
    """Several connections, which the QEMUs make."""

    def __init__(
        self, source: QemuVm, target: QemuVm, address: str, options: MigrationOptions
    ) -> None:
        super().__init__(source, target, address, options)
        self._port = 0
        self._held: set[str] = set()

    async def listen(self) -> str:
        return self._name(0)

    async def outgoing(self) -> str:
        said = await self._target.monitor.execute("query-migrate")
        self._port = int(said["socket-address"][0]["port"])
        return self._name(self._port)

    def _name(self, port: int) -> str:
        host = f"[{self._address}]" if ":" in self._address else self._address
        return f"tcp:{host}:{port}{',mptcp=on' if self._options.mptcp else ''}"

    async def adopt(self) -> None:
        try:
            async with asyncio.timeout(_CONNECT_LIMIT_S):
                while len(self.ends) < self._options.connections:
                    self._look()
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise ExperimentError("no way to this address") from error

    def _look(self) -> None:
        """Take duplicates of those that there are by now."""
        process = self._source.process.pid
        watched = os.pidfd_open(process)
        try:
            for name, number in _sockets(process):
                if name not in self._held:
                    end = _duplicate(watched, number)
                    if _port(end) != self._port:
                        end.close()
                        continue
                    self._held.add(name)
                    self.ends.append(end)
                    _tune(end, self._options)
        finally:
            os.close(watched)


async def _connect(end: socket.socket, address: Any) -> None:
    """As the loop's own, which knows no MPTCP."""
    code = end.connect_ex(address)
    if code == errno.EINPROGRESS:
        loop, writable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(end, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(end)
        code = end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _tune(end: socket.socket, options: MigrationOptions) -> None:
    end.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _WAITING)
    if not options.mptcp:
        try:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, options.congestion.encode())
        except OSError as error:
            raise FeatureError(
                f"no congestion control {options.congestion} ({error.strerror})",
                remedy="see net.ipv4.tcp_available_congestion_control",
            ) from error


def _acknowledged(end: socket.socket) -> int:
    if end.proto == mptcp.IPPROTO_MPTCP and not mptcp.is_fallback(end):
        return connection_info(end).bytes_acked
    data = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
    return int(TCP_INFO.unpack(data.ljust(TCP_INFO.size, b"\0"))[_BYTES_ACKED])


def _sockets(process: int) -> Iterator[tuple[str, int]]:
    """The sockets of a process: the kernel's name for each, and its descriptor."""
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if (name := os.readlink(entry)).startswith("socket:"):
                yield name, int(entry.name)


def _port(end: socket.socket) -> int:
    """The port it is connected to; 0 where it is not, or has none."""
    try:
        peer = end.getpeername()
    except OSError:  # not connected, or not yet
        return 0
    return int(peer[1]) if isinstance(peer, tuple) else 0


def _duplicate(process: int, number: int) -> socket.socket:
    """A duplicate of another process's socket (pidfd_getfd(2), Linux 5.6)."""
    descriptor = _libc.syscall(_SYS_PIDFD_GETFD, process, number, 0)
    if descriptor < 0:
        code = ctypes.get_errno()
        if code == errno.ENOSYS:
            raise FeatureError("no pidfd_getfd here", remedy="Linux 5.6 or later, or one stream")
        raise OSError(code, os.strerror(code))
    return socket.socket(fileno=descriptor)
