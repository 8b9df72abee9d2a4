"""Open vSwitch in userspace, private to one sandbox.

The daemons (`ovsdb-server`, `ovs-vswitchd`) run where Open vSwitch's programs look for them,
/run/openvswitch, which in a sandbox is its own: `ovs-vsctl` and `ovs-ofctl` called by a script
reach them, neither the machine's Open vSwitch nor another experiment's is touched, and no kernel
module is needed.  Networks of one sandbox share them.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from mininet.node import OVSSwitch as MininetOVSSwitch
from mininet.node import UserSwitch as MininetUserSwitch

from testbed.errors import FeatureError, ParameterError, TestbedError
from testbed.kernel import rtnetlink
from testbed.network.failure import KILLED
from testbed.network.switch import Switch

DIRECTORY = Path("/run/openvswitch")
_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_DAEMONS = ("ovs-vswitchd", "ovsdb-server")
_LOG = DIRECTORY / "ovs-vswitchd.log"
_CONNECTION = re.compile(r"\|rconn\|\w+\|(?P<switch>\S+)<->(?P<target>\S+): (?P<what>.*)")


def missing() -> str:
    """Why this machine cannot run the switch, or an empty string."""
    programs = [
        name for name in (*_DAEMONS, "ovs-vsctl") if shutil.which(name, path=_path()) is None
    ]
    if programs or not _SCHEMA.exists():
        return f"Open vSwitch is not installed ({', '.join(programs) or _SCHEMA} is missing)"
    return ""


def _path() -> str:
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


class OpenVSwitch:
    """The daemons, in the namespace of whoever is the first to want them."""

    _running: OpenVSwitch | None = None

    def __init__(self) -> None:
        if reason := missing():
            raise FeatureError(reason, remedy="apt-get install openvswitch-switch")
        self._users = 0
        self.environment = {
            **os.environ,
            **{f"OVS_{name}DIR": str(DIRECTORY) for name in ("RUN", "LOG", "DB", "SYSCONF")},
        }
        self._ours = not (DIRECTORY / "db.sock").exists()
        if self._ours:
            self._start()

    def _start(self) -> None:
        DIRECTORY.mkdir(exist_ok=True)
        self._run("ovsdb-tool", "create", "conf.db", str(_SCHEMA))
        self._daemon("ovsdb-server", "conf.db", f"--remote=punix:{DIRECTORY}/db.sock")
        self.vsctl("--no-wait", "init")
        self._daemon("ovs-vswitchd", f"unix:{DIRECTORY}/db.sock")

    @classmethod
    def join(cls) -> OpenVSwitch:
        """The daemons of this sandbox, started for the first who asks; `leave` ends that."""
        if cls._running is None:
            cls._running = cls()
        cls._running._users += 1
        return cls._running

    def _daemon(self, name: str, *arguments: str) -> None:
        """Start a daemon; it detaches when it is ready."""
        self._run(
            name,
            *arguments,
            f"--pidfile={DIRECTORY}/{name}.pid",
            f"--unixctl={DIRECTORY}/{name}.ctl",
            f"--log-file={DIRECTORY}/{name}.log",
            "-vconsole:off",
            "--detach",
            "--no-chdir",
        )

    def vsctl(self, *arguments: str) -> str:
        """Run ovs-vsctl on this database."""
        return self._run("ovs-vsctl", f"--db=unix:{DIRECTORY}/db.sock", *arguments)

    def run(self, *command: str) -> str:
        """Run a program of Open vSwitch (ovs-ofctl, ovs-appctl) against these daemons."""
        return self._run(*command)

    def connected_to(self, switch: str) -> set[str]:
        """Controllers ("tcp:127.0.0.1:6653") with which a switch has an OpenFlow connection now.

        Read from the daemon's log, where a connection is noted as soon as its version is agreed
        on or it ends; the database's `is_connected` is written every five seconds only.
        """
        state = {
            found["target"]: found["what"] == "connected"
            for line in _LOG.read_text().splitlines()
            if (found := _CONNECTION.search(line)) and found["switch"] == switch
        }
        return {target for target, connected in state.items() if connected}

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=DIRECTORY, env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise TestbedError(
                f"{command[0]}: {said[-1] if said else f'exit status {done.returncode}'}",
                remedy=f"its log is in {DIRECTORY}",
            )
        return done.stdout

    def _end(self, name: str) -> None:
        """Tell a daemon to end, and wait until it has removed its files and is gone."""
        daemon = os.pidfd_open(int((DIRECTORY / f"{name}.pid").read_text()))
        try:
            self._run("ovs-appctl", "-t", f"{DIRECTORY}/{name}.ctl", "exit")
            select.select([daemon], [], [])
        finally:
            os.close(daemon)

    def leave(self) -> None:
        """When the last user leaves, end the daemons and remove their folder."""
        self._users -= 1
        if self._users or not self._ours:
            return
        for name in _DAEMONS:
            self._end(name)
        shutil.rmtree(DIRECTORY)
        OpenVSwitch._running = None


class OVSSwitch(Switch, MininetOVSSwitch):
    """An Open vSwitch switch with the userspace datapath; a learning switch without controller.

    Mininet's parameters apply (`protocols`, `stp`, `failMode`, ...); `failMode` defaults to
    "standalone" and `datapath` is always "user".
    """

    wire_frames = True  # hands on frames as they are: a segment without checksum would be lost
    OVSVersion = "2.0"  # Mininet only asks whether it is older than 1.10
    _own: OpenVSwitch | None = None
    _uuids: list[str]
    _targets: frozenset[str] = frozenset()

    def __init__(self, name: str, failMode: str = "standalone", **params: Any) -> None:
        super().__init__(name, failMode=failMode, **params)

    # Mininet's constructors assign these; here they have one meaning.
    datapath = property(lambda _self: "user", lambda _self, _value: None)
    batch = property(lambda _self: False, lambda _self, _value: None)

    @classmethod
    def setup(cls) -> None:
        """What is missing is said when a switch starts."""

    @property
    def daemons(self) -> OpenVSwitch:
        """The Open vSwitch of this switch's network, started on first use."""
        if self.network is not None:
            return self.network.openvswitch
        if self._own is None:
            self._own = OpenVSwitch.join()
        return self._own

    def vsctl(self, *args: Any, **_kwargs: Any) -> str:
        """Run ovs-vsctl with Mininet's way of passing words."""
        words = " ".join(str(arg) for arg in args).replace('\\"', '"').split()
        return self.daemons.vsctl(*words)

    def dpctl(self, *args: str) -> str:
        """Run ovs-ofctl on this switch."""
        words = shlex.split(" ".join(str(arg) for arg in args[1:]))
        return self.daemons.run("ovs-ofctl", args[0], self.name, *words)

    def start(self, controllers: Any) -> None:
        """Make the bridge, with its ports and controllers."""
        ends = [c.endpoint(self) if hasattr(c, "endpoint") else c for c in controllers]
        self._targets = frozenset(f"{c.protocol}:{c.IP()}:{c.port}" for c in ends)
        super().start(ends)
        self.forwards = True

    def connected(self) -> bool:
        """Is there an OpenFlow connection to a controller?  (Standalone, none is needed.)"""
        if self.failMode == "standalone":
            return True
        return bool(self._targets & self.daemons.connected_to(self.name))

    @property
    def controlled(self) -> bool:
        """Has it been given any controller?"""
        return bool(self._targets)

    @staticmethod
    def TCReapply(_intf: Any) -> None:
        """Nothing to do: shaping happens in the link, not on the switch's interfaces."""

    def controllerUUIDs(self, update: bool = False) -> list[str]:
        """Database identifiers of this switch's controllers."""
        if update or not self._uuids:
            listed = self.daemons.vsctl("get", "Bridge", self.name, "Controller")
            self._uuids = [word.strip(" []\n") for word in listed.split(",") if word.strip(" []\n")]
        return list(self._uuids)

    def attach(self, intf: Any) -> None:
        """Add a port to the running switch, with the number the interface has here."""
        number = self.ports.get(intf)
        request = ["--", "set", "Interface", str(intf), f"ofport_request={number}"]
        self.daemons.vsctl("add-port", self.name, str(intf), *(request if number else ()))
        index = self.netlink.index(str(intf))
        self.netlink.request(rtnetlink.set_link(index, up=True))

    def kill(self) -> None:
        """Lose power, and with it flows, ports and what was learned."""
        super().kill()
        self.daemons.vsctl("--if-exists", "del-br", self.name)

    def restart(self) -> None:
        """Come back as it was started."""
        if self.failed != KILLED:
            self.kill()
        self.failed = ""
        self.start(self._network.controllers)
        self.failed = KILLED
        super().restart()

    def stop(self, deleteIntfs: bool = True) -> None:
        """Delete the bridge and, with `deleteIntfs`, its ports."""
        self.daemons.vsctl("--if-exists", "del-br", self.name)
        if deleteIntfs:
            self.deleteIntfs()
        if self._own is not None:
            self._own.leave()
            self._own = None

    @classmethod
    def batchShutdown(cls, switches: Any, run: Any = None) -> list[Any]:
        """Each switch stops itself."""
        return []


class UserSwitch(OVSSwitch, MininetUserSwitch):
    """Mininet's name for a switch that runs in userspace: here Open vSwitch's.

    Of `opts`, options of the reference switch's `ofprotocol`, `--inactivity-probe=S` and
    `--max-backoff=S` are understood; `dpopts` say how the reference switch shapes, which links do
    here.
    """

    def __init__(self, name: str, dpopts: str = "", **params: Any) -> None:
        super().__init__(name, **{"failMode": "secure", **params})
        self._settings = [_controller_setting(option) for option in self.opts.split()]

    def start(self, controllers: Any) -> None:
        """Make the bridge, with its ports and controllers."""
        super().start(controllers)
        for uuid in self.controllerUUIDs(update=True) if self._settings else ():
            self.daemons.vsctl("set", "Controller", uuid, *self._settings)


def _controller_setting(option: str) -> str:
    name, _equals, seconds = option.partition("=")
    column = {"--inactivity-probe": "inactivity_probe", "--max-backoff": "max_backoff"}.get(name)
    if column is None or not seconds.isdigit():
        raise ParameterError(
            f"UserSwitch: opts has {option!r}",
            remedy="give --inactivity-probe=SECONDS, --max-backoff=SECONDS, or use OVSSwitch",
        )
    return f"{column}={int(seconds) * 1000}"
