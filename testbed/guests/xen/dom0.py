"""A Xen host that is a guest of ours: QEMU boots the image `xen`, and its agent is the dom0's.

For what this machine's kernel is not: nothing of it is Xen's.  Commands go through the guest's
agent, streams over virtio serial ports that are plugged in for them.
"""

from __future__ import annotations

import asyncio
import itertools
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from testbed.errors import ExperimentError
from testbed.guests.images import find
from testbed.guests.machine import Machine
from testbed.guests.qemu.monitor import Monitor
from testbed.guests.qemu.vm import QemuVm
from testbed.guests.tap import Tap
from testbed.guests.xen.host import Stream, XenHost
from testbed.kernel import NetworkNamespace

BRIDGE = "xenbr0"  # of all interfaces of the dom0; its init makes it
MEMORY_MB = 1280  # 768 of it are the dom0's, see `qemu.command`
_FILES = "/run/images"
_WRITE = 'mkdir -p "${1%/*}" && head -c "$2" >"$1" && echo done'
_LIMIT_S = 120.0
_PORT = """
until port=$(grep -lx {name} /sys/class/virtio-ports/*/name); do sleep 0.05; done
port=/dev/$(basename "$(dirname "$port")")
{{ setsid sh -c {script} sh {arguments} <&5 >&5 2>/dev/null 5>&- & }} 5<>"$port"
"""


class GuestHost(XenHost):
    """A dom0 in `vm`; `boot` makes one.  Its bridge `BRIDGE` has all its interfaces."""

    vif_script = "vif-liquidnet"

    def __init__(self, vm: QemuVm) -> None:
        self.vm = vm
        self.name = f"Xen host {vm.name}"
        self._numbers = itertools.count(1)
        self._provided: dict[Path, str] = {}
        self._closed = False

    @classmethod
    async def boot(
        cls,
        namespace: NetworkNamespace,
        taps: Sequence[Tap] = (),
        *,
        macs: Sequence[str] = (),
        name: str = "dom0",
        address: str = "",
        memory_mb: int = MEMORY_MB,
        log: Path | None = None,
        limit_s: float = 300.0,
    ) -> Self:
        """Boot a Xen host in `namespace` with one TAP for each MAC address of `macs`.

        `address` ("10.0.0.2/24") is the host's own, on its bridge.

        Raises `FeatureError` where the image is not built, `ExperimentError` where it does not
        boot within `limit_s`.
        """
        machine = Machine(find("xen"), memory_mb, tuple(macs), name=name)
        vm = await QemuVm.start(machine, namespace, taps, log=log)
        try:
            await vm.ready(limit_s)
            if address:
                await vm.run(f"ip addr add {address} dev {BRIDGE}")
        except BaseException:
            await vm.close()
            raise
        return cls(vm)

    async def run(self, script: str, *, limit_s: float = 30.0) -> str:
        """Run shell commands in dom0; what they said."""
        return await self.vm.run(script, limit_s=limit_s)

    async def put(self, path: str, data: bytes) -> None:
        """Write a file in dom0, which is in its memory."""
        await self.vm.put(path, data)

    async def provide(self, file: Path) -> str:
        """Bring a file into dom0, once."""
        if file not in self._provided:
            path = f"{_FILES}/{len(self._provided)}-{file.name}"
            await self._bring(file, path)
            self._provided[file] = path
        return self._provided[file]

    async def _bring(self, file: Path, path: str) -> None:
        """Write a large file over a port of its own, which takes no copies."""
        data = await asyncio.to_thread(file.read_bytes)
        loop = asyncio.get_running_loop()
        async with await self.stream(_WRITE, path, str(len(data))) as stream:
            try:
                async with asyncio.timeout(_LIMIT_S):
                    await loop.sock_sendall(stream.end, data)
                    written = await loop.sock_recv(stream.end, 1)
            except (TimeoutError, ConnectionError):
                written = b""
        if not written:
            raise ExperimentError(f"{self.name} does not take {file.name} ({len(data)} bytes)")

    @property
    def alive(self) -> bool:
        """Does it still run?"""
        return not self.vm.crashed.done() and not self._closed

    async def stream(self, script: str, *arguments: str) -> Stream:
        """Start shell commands in dom0, at a port of their own."""
        name = f"stream{next(self._numbers)}"
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        monitor = self.vm.monitor
        try:
            with theirs:
                await monitor.hand_over(theirs, name)
            address = {"type": "fd", "data": {"str": name}}
            backend = {"type": "socket", "data": {"addr": address, "server": False}}
            await monitor.execute("chardev-add", {"id": name, "backend": backend})
            await monitor.execute(
                "device_add",
                {"driver": "virtserialport", "id": f"port-{name}", "chardev": name, "name": name},
            )
        except BaseException:
            ours.close()
            raise
        port = _Port(ours, monitor, name)
        words = " ".join(shlex.quote(word) for word in arguments)
        told = _PORT.format(name=name, script=shlex.quote(script), arguments=words)
        starting = asyncio.create_task(self.run(told))
        try:
            await asyncio.shield(starting)
        except BaseException:
            await asyncio.gather(starting, return_exceptions=True)  # it looks for the port
            await port.close()
            raise
        return port

    async def close(self) -> None:
        """End the host, and all its domains."""
        self._closed = True
        await self.vm.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()


class _Port(Stream):
    """A port of the guest, unplugged when either end has left it."""

    def __init__(self, end: socket.socket, monitor: Monitor, name: str) -> None:
        self.end = end
        self._monitor, self._name = monitor, name
        self._closed = asyncio.Event()
        self._life = asyncio.create_task(self._live())

    async def close(self) -> None:
        self.end.close()
        self._closed.set()
        await asyncio.gather(self._life, return_exceptions=True)  # it fails if QEMU is gone

    async def _live(self) -> None:
        device = f"port-{self._name}"
        left = asyncio.create_task(self._event("VSERPORT_CHANGE", id=device, open=False))
        closed = asyncio.create_task(self._closed.wait())
        await asyncio.wait((left, closed), return_when=asyncio.FIRST_COMPLETED)
        for task in (left, closed):
            task.cancel()
        await self._monitor.execute("device_del", {"id": device})
        await self._event("DEVICE_DELETED", device=device)
        await self._monitor.execute("chardev-remove", {"id": self._name})

    async def _event(self, name: str, **data: object) -> None:
        await self._monitor.event(
            lambda event: event.name == name and data.items() <= event.data.items()
        )
