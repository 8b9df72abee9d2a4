"""Controllers: programs that speak OpenFlow to switches, in the sandbox or outside it.

`Controller` starts one and is ready when it listens.  Mininet's reference controller is not
packaged any more; Open vSwitch's test controller, which descends from it, takes its place.
"""

from __future__ import annotations

import ipaddress
import itertools
import shlex
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mininet.log import warn
from mininet.node import Controller as MininetController
from mininet.node import OVSController as MininetOVSController
from mininet.node import RemoteController as MininetRemoteController

from testbed.errors import FeatureError, NodeProcessError
from testbed.network import ovs
from testbed.network.node import Node
from testbed.sandbox import uplink

_REFERENCE = "controller"
_TEST_CONTROLLER = "ovs-testcontroller"
# The reference controller's version; in later ones deleting all flows silences a switch for good.
_VERSION = "OpenFlow10"
_SWITCHES_EACH = 16  # MAX_SWITCHES of ovs-testcontroller.c
_PATIENCE_S = 30
_PAUSE_S = 0.01
_CONNECT_S = 2
STAND_INS = Path("/run/testbed-bin")
"""Where a script finds stand-ins for programs that Mininet's world has, first in its PATH."""
_spare_ports = itertools.count(16653)


@dataclass(frozen=True)
class Endpoint:
    """Where one switch finds a controller."""

    name: str
    protocol: str
    ip: str
    port: int

    def IP(self) -> str:
        """Address of the controller."""
        return self.ip


class Controller(Node, MininetController):
    """A controller that is started with the network.

    Parameters are Mininet's; `command` "controller" is Open vSwitch's test controller where
    there is no program of that name.  What it says is kept in /run/NAME.log of the sandbox.
    One process of that controller serves 16 switches; more are started where they are needed,
    also for switches that do not speak OpenFlow 1.0 (`protocols=`).
    """

    def __init__(self, name: str, cargs: str = "ptcp:%d", **params: Any) -> None:
        self._serving: dict[str, tuple[int, int]] = {}  # by version: port, switches so far
        super().__init__(name, cargs=cargs, **params)

    def checkListening(self) -> None:
        """Whether the port is free is seen when the program starts."""

    @property
    def program(self) -> list[str]:
        """The command without its arguments, as it can be started here."""
        words = shlex.split(self.command)
        if words == [_REFERENCE] and not _reference():
            words = [_TEST_CONTROLLER]
        if not shutil.which(words[0]):
            package = "openvswitch-testcontroller" if words == [_TEST_CONTROLLER] else words[0]
            raise FeatureError(
                f"controller {self.name}: {words[0]} is not installed",
                remedy=f"install {package}, or give a RemoteController",
            )
        return words

    @property
    def _is_test_controller(self) -> bool:
        return Path(self.program[0]).name == _TEST_CONTROLLER

    @property
    def log(self) -> Path:
        """What the program says."""
        return Path("/run") / f"{self.name}.log"

    def start(self) -> None:
        """Start the program and wait until it listens."""
        self._serve(self.port, _VERSION)

    def _serve(self, port: int, version: str) -> None:
        arguments = self.cargs % port if "%" in self.cargs else self.cargs
        ovs.DIRECTORY.mkdir(exist_ok=True)  # its programs expect it
        versions = ("-O", version) if self._is_test_controller else ()
        command = [*self.program, *versions, *shlex.split(arguments)]
        with self.log.open("ab") as log:
            child = self.popen(command, stdout=log, stderr=log, cwd=self.cdir)
        if "%" in self.cargs:
            self._until_listening(child, port)
        self._serving[version] = port, 0

    def _until_listening(self, child: subprocess.Popen[Any], port: int) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not _listens(child.pid, port):
            if child.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace").strip().splitlines()
                raise NodeProcessError(
                    f"controller {self.name} does not listen on port {port}: "
                    f"{said[-1] if said else f'exit status {child.returncode}'}",
                    remedy=f"its log is {self.log}",
                )
            time.sleep(_PAUSE_S)

    def endpoint(self, switch: Any) -> Endpoint:
        """Where one more switch connects to."""
        port = self.port
        if self._serving and self._is_test_controller:
            spoken = (switch.protocols or _VERSION).replace(" ", "")
            version = _VERSION if _VERSION in spoken.split(",") else spoken
            _port, switches = self._serving.get(version, (0, _SWITCHES_EACH))
            if switches == _SWITCHES_EACH:
                self._serve(next(_spare_ports), version)
            port, switches = self._serving[version]
            self._serving[version] = port, switches + 1
        return Endpoint(self.name, self.protocol, self.IP(), port)

    def stop(self, *args: Any, **kwargs: Any) -> None:
        """End the program, and the node with it."""
        super(MininetController, self).stop(*args, **kwargs)

    def __repr__(self) -> str:
        """As in Mininet, without starting a shell for the pid."""
        return f"<{type(self).__name__} {self.name}: {self.IP()}:{self.port}> "

    @classmethod
    def isAvailable(cls) -> str | None:
        """The program it would start; None where there is none."""
        return _reference() or shutil.which(_TEST_CONTROLLER)


def _reference() -> str | None:
    """The reference controller, if it is really installed."""
    found = shutil.which(_REFERENCE)
    return None if found and Path(found).parent == STAND_INS else found


def _listens(pid: int, port: int) -> bool:
    """Does any socket in the network namespace of a process listen on a TCP port?"""
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:  # it has ended, or the kernel has no IPv6
            continue
        for fields in map(str.split, lines):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                return True
    return False


class RemoteController(Controller, MininetRemoteController):
    """A controller somebody else runs: in the sandbox, or by the uplink on the machine.

    Without a port, 6653 and 6633 are tried.  An address of the loopback is the sandbox's own; if
    nothing listens there and the sandbox has an uplink, it is the machine's.
    """

    def checkListening(self) -> None:
        """Find the port, and warn when nobody listens."""
        MininetRemoteController.checkListening(self)

    def isListening(self, ip: str, port: int) -> bool:
        """Does anybody accept connections there?"""
        for address in (ip, *_outside(ip)):
            if _accepts(address, port):
                self.ip = address
                return True
        warn(f"Unable to contact the remote controller at {ip}:{port}\n")
        return False

    def start(self) -> None:
        """Somebody else does."""

    def stop(self, *_args: Any, **_kwargs: Any) -> None:
        """Somebody else does."""

    def endpoint(self, _switch: Any) -> Endpoint:
        """Where every switch connects to."""
        return Endpoint(self.name, self.protocol, self.IP(), self.port)


def _outside(ip: str) -> list[str]:
    """The machine's address for what would be its loopback, where there is an uplink."""
    machine = uplink.machine_address()
    return [machine] if machine and ipaddress.ip_address(ip).is_loopback else []


def _accepts(ip: str, port: int) -> bool:
    try:
        socket.create_connection((ip, port), timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


class OVSController(Controller, MininetOVSController):
    """Open vSwitch's test controller."""

    @classmethod
    def isAvailable(cls) -> str | None:
        """The program; None where it is not installed."""
        return shutil.which(_TEST_CONTROLLER)


def DefaultController(name: str, **params: Any) -> Controller:
    """What Mininet takes when nothing else is asked for."""
    return Controller(name, **params)
