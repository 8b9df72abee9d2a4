"""A machine of QEMU's, booted from the image `full`, that goes on until it is brought down.

The image is not written to: the machine's disk is a layer over it.  The guest gets the machine's
public key as a credential of systemd's (ssh.authorized_keys.root, see systemd-tmpfiles(8)) on the
kernel's command line.  Its SSH server is reached by a port of the loopback that the kernel chose;
of the network it sees nothing else, unless it was made with `--internet`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from testbed.errors import ExperimentError, FeatureError, MachineError, ParameterError
from testbed.guests import images
from testbed.guests.qemu import accelerator
from testbed.guests.qemu.command import QEMU
from testbed.guests.qemu.monitor import Monitor
from testbed.remote.address import Address
from testbed.remote.keys import make_pair
from testbed.remote.progress import Progress
from testbed.remote.providers.base import RUNNING, STOPPED, Provider

T = TypeVar("T")

IMAGE = "full"
_BOOT_LIMIT_S = 300.0  # translated, on a busy machine; 40 s at rest
_POWERDOWN_LIMIT_S = 90.0
_PATIENCE_S = 10.0
_LEAST_MB = 384
_DISK = "disk.qcow2"
_LOOPBACK = "127.0.0.1"
_FORWARDED = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)")


class Qemu(Provider):
    """Its options are "memory_mb", "cpus" and "internet"."""

    kind = "qemu"
    ours = True  # and nothing else can answer at its port

    @classmethod
    def missing(cls) -> str:
        """QEMU, its tool for disks, the image."""
        if not shutil.which("qemu-img"):
            return "not installed: qemu-utils; apt-get install qemu-utils"
        return images.missing(IMAGE)

    @classmethod
    def options(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Hardware, as it will be whenever it is brought up."""
        memory_mb, cpus = given["memory_mb"], given["cpus"]
        if memory_mb < _LEAST_MB:
            raise ParameterError(f"--memory {memory_mb}M", remedy=f"give at least {_LEAST_MB}M")
        if not 0 < cpus <= 64:
            raise ParameterError(f"--cpus {cpus}", remedy="give 1 to 64")
        return {"memory_mb": memory_mb, "cpus": cpus, "internet": given["internet"]}

    # -- up --------------------------------------------------------------------------------------

    def up(self, progress: Progress) -> Address:
        """Boot it unless it runs; wait until its SSH server says something."""
        if self.state() == RUNNING:
            port = self._ask(_forwarded_port)
        else:
            progress.step("booting")
            port = self._boot()
        return Address(
            host=_LOOPBACK, port=port, user="root", keys=(str(self._place("id_ed25519")),),
            alias=f"liquidnet-{self.machine.name}",
        )  # fmt: skip

    def _boot(self) -> int:
        """Start it; the port at which its SSH server has answered."""
        try:
            self._start(make_pair(self._place("id_ed25519")))
            port = self._ask(_forwarded_port)
            self._await_server(port)
        except BaseException:
            self._end(patience_s=0)
            raise
        return port

    def _start(self, public_key: str) -> None:
        self._make_disk()
        for name in ("qmp", "pid"):
            self._place(name).unlink(missing_ok=True)
        words = command_line(
            self.machine.name, self.machine.options, public_key, accelerator.choose()
        )
        # the monitor's socket by a short name: paths of sockets have 107 bytes at most
        done = subprocess.run(
            words, cwd=self.machine.folder, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["no reason given"]
            raise MachineError(f"QEMU of {self.machine.name} does not start: {said[-1]}")

    def _make_disk(self) -> None:
        """The machine's own layer over the image that it is made of, for as long as it is kept."""
        options = self.machine.options
        if not self._place(_DISK).exists():
            image = images.find(IMAGE)
            assert image.disk is not None
            paths = {"kernel": image.kernel, "initrd": image.initrd, "below": image.disk}
            options.update({name: str(path) for name, path in paths.items()})
            self.machine.save()
            layer = ("-f", "qcow2", "-F", "qcow2", "-b", options["below"])
            _qemu_img("create", "-q", *layer, str(self._place(_DISK)))
        elif not Path(options["below"]).exists():
            raise MachineError(
                f"the image that {self.machine.name} is made of is gone ({options['below']})",
                remedy=f"testbed vm down --destroy --name {self.machine.name}, and make it anew",
            )

    def _await_server(self, port: int) -> None:
        """Until the guest's SSH server has greeted; the guest's last words where it does not."""
        deadline = time.monotonic() + _BOOT_LIMIT_S
        while not _greets(port):
            if self.state() != RUNNING:
                raise ExperimentError(f"{self.machine.name} ended while booting: {self._words()}")
            if time.monotonic() > deadline:
                raise ExperimentError(
                    f"{self.machine.name} has no SSH server after {_BOOT_LIMIT_S:.0f} s: "
                    + self._words()
                )

    def _words(self) -> str:
        console = self._place("console.log")
        lines = console.read_text(errors="replace").split("\n") if console.exists() else []
        said = [line.strip() for line in lines if line.strip()]
        panics = [line for line in said if "Kernel panic" in line]
        return (panics or said or ["its console is empty"])[-1]

    # -- state and down --------------------------------------------------------------------------

    def state(self) -> str:
        """Does its QEMU live?"""
        return RUNNING if self._pid() else STOPPED

    def down(self, progress: Progress, *, destroy: bool) -> None:
        """Press its power button; end QEMU where that does not help."""
        if self.state() == RUNNING:
            progress.step("shutting down")
            with contextlib.suppress(ExperimentError):  # a QEMU that hangs is killed
                self._ask(_power_down)
        self._end(patience_s=_PATIENCE_S)
        for name in ("qmp", "pid"):
            self._place(name).unlink(missing_ok=True)

    def _end(self, *, patience_s: float) -> None:
        """End QEMU, unless it has ended or does so in `patience_s`, while it closes its disk."""
        if not (pid := self._pid()):
            return
        handle = os.pidfd_open(pid)
        try:
            if not select.select([handle], [], [], patience_s)[0]:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                select.select([handle], [], [], _PATIENCE_S)
        finally:
            os.close(handle)

    def _pid(self) -> int:
        """The process of its QEMU; 0 where there is none (a number may be another's by now)."""
        try:
            pid = int(self._place("pid").read_text())
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except (OSError, ValueError):
            return 0
        return pid if _name(self.machine.name) in words else 0

    def _ask(self, what: Callable[[Monitor], Awaitable[T]]) -> T:
        """Do something with its monitor."""

        async def ask() -> T:
            monitor = await Monitor.open(self._connected(), self.machine.name)
            try:
                return await what(monitor)
            finally:
                await monitor.close()

        return asyncio.run(ask())

    def _connected(self) -> socket.socket:
        folder = os.open(self.machine.folder, os.O_PATH)
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(f"/proc/self/fd/{folder}/qmp")
        except OSError as error:
            line.close()
            raise ExperimentError(
                f"QEMU of {self.machine.name} does not answer: {error.strerror}"
            ) from error
        finally:
            os.close(folder)
        return line

    def _place(self, name: str) -> Path:
        return self.machine.folder / name


def command_line(name: str, options: dict[str, Any], public_key: str, carrier: str) -> list[str]:
    """The words that start QEMU in the background, in the machine's folder."""
    translated = ("-accel", "tcg,thread=multi", "-cpu", "Nehalem")
    restrict = "off" if options["internet"] else "on"
    return [
        *(QEMU, "-name", _name(name), "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", "q35", "-m", str(options["memory_mb"]), "-smp", str(options["cpus"])),
        *(translated if carrier == "tcg" else ("-accel", carrier, "-cpu", "host")),
        *("-kernel", options["kernel"], "-initrd", options["initrd"]),
        *("-append", _kernel_options(public_key)),
        *("-drive", f"file={_DISK},if=virtio,format=qcow2,discard=unmap"),
        *("-netdev", f"user,id=net,restrict={restrict},hostfwd=tcp:{_LOOPBACK}:0-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"),
        *("-chardev", "file,id=console,path=console.log", "-serial", "chardev:console"),
        *("-qmp", "unix:qmp,server=on,wait=off", "-pidfile", "pid", "-daemonize"),
    ]


def _kernel_options(public_key: str) -> str:
    return (
        "console=ttyS0 root=/dev/vda rw quiet net.ifnames=0 "
        f'systemd.set_credential="ssh.authorized_keys.root:{public_key}"'
    )


def _name(machine: str) -> str:
    return f"liquidnet-{machine}"


async def _forwarded_port(monitor: Monitor) -> int:
    """The port of the loopback that leads to the guest's SSH server."""
    said = await monitor.execute("human-monitor-command", {"command-line": "info usernet"})
    found = _FORWARDED.search(said)
    if found is None:
        raise ExperimentError(f"QEMU of {monitor.name} forwards no port", remedy="vm down, vm up")
    return int(found[1])


async def _power_down(monitor: Monitor) -> None:
    """Press the power button, and wait for QEMU to end."""
    await monitor.execute("system_powerdown")
    try:
        async with asyncio.timeout(_POWERDOWN_LIMIT_S):
            await monitor.event(lambda event: event.name == "SHUTDOWN")
    except TimeoutError:
        await monitor.execute("quit")


def _greets(port: int) -> bool:
    """Does an SSH server answer at the port?  QEMU accepts also what it cannot deliver yet."""
    try:
        with socket.create_connection((_LOOPBACK, port), 1) as line:
            line.settimeout(1)
            greeting = line.recv(4)
    except OSError:
        greeting = b""
    if not greeting:
        time.sleep(0.1)  # refused, not just late
    return greeting == b"SSH-"


def _qemu_img(*words: str) -> None:
    done = subprocess.run(["qemu-img", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise FeatureError(f"qemu-img {words[0]}: {done.stderr.strip() or 'no reason given'}")
