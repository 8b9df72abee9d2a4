"""Open vSwitch in userspace, private to one network.

The daemons (`ovsdb-server`, `ovs-vswitchd`) keep their database, sockets and logs in a folder
of the sandbox's own /run, so that neither the machine's Open vSwitch nor another experiment's
is touched, and no kernel module is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from mininet.node import OVSSwitch as MininetOVSSwitch

from testbed.errors import FeatureError, TestbedError
from testbed.kernel import rtnetlink
from testbed.network.failure import KILLED
from testbed.network.switch import Switch

_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_DAEMONS = ("ovs-vswitchd", "ovsdb-server")


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
    """The daemons of one network, in the namespace of whoever starts them."""

    def __init__(self) -> None:
        if reason := missing():
            raise FeatureError(reason, remedy="apt-get install openvswitch-switch")
        self.directory = Path(tempfile.mkdtemp(prefix="openvswitch-", dir="/run"))
        self.environment = {
            **os.environ,
            **{f"OVS_{name}DIR": str(self.directory) for name in ("RUN", "LOG", "DB", "SYSCONF")},
        }
        self._run("ovsdb-tool", "create", "conf.db", str(_SCHEMA))
        self._daemon("ovsdb-server", "conf.db", f"--remote=punix:{self.directory}/db.sock")
        self.vsctl("--no-wait", "init")
        self._daemon("ovs-vswitchd", f"unix:{self.directory}/db.sock")

    def _daemon(self, name: str, *arguments: str) -> None:
        """Start a daemon; it detaches when it is ready."""
        self._run(
            name,
            *arguments,
            f"--pidfile={self.directory}/{name}.pid",
            f"--unixctl={self.directory}/{name}.ctl",
            f"--log-file={self.directory}/{name}.log",
            "-vconsole:off",
            "--detach",
            "--no-chdir",
        )

    def vsctl(self, *arguments: str) -> str:
        """Run ovs-vsctl on this database."""
        return self._run("ovs-vsctl", f"--db=unix:{self.directory}/db.sock", *arguments)

    def run(self, *command: str) -> str:
        """Run a program of Open vSwitch (ovs-ofctl, ovs-appctl) against these daemons."""
        return self._run(*command)

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise TestbedError(
                f"{command[0]}: {said[-1] if said else f'exit status {done.returncode}'}",
                remedy=f"its log is in {self.directory}",
            )
        return done.stdout

    def close(self) -> None:
        """End the daemons and remove their folder."""
        for name in _DAEMONS:
            self._run("ovs-appctl", "-t", f"{self.directory}/{name}.ctl", "exit")
        shutil.rmtree(self.directory)


class OVSSwitch(Switch, MininetOVSSwitch):
    """An Open vSwitch switch with the userspace datapath; a learning switch without controller.

    Mininet's parameters apply (`protocols`, `stp`, `failMode`, ...); `failMode` defaults to
    "standalone" and `datapath` is always "user".
    """

    wire_frames = True  # hands on frames as they are: a segment without checksum would be lost
    OVSVersion = "2.0"  # Mininet only asks whether it is older than 1.10
    _own: OpenVSwitch | None = None
    _uuids: list[str]

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
            self._own = OpenVSwitch()
        return self._own

    def vsctl(self, *args: Any, **_kwargs: Any) -> str:
        """Run ovs-vsctl with Mininet's way of passing words."""
        words = " ".join(str(arg) for arg in args).replace('\\"', "").split()
        return self.daemons.vsctl(*words)

    def dpctl(self, *args: str) -> str:
        """Run ovs-ofctl on this switch."""
        return self.daemons.run("ovs-ofctl", args[0], self.name, *args[1:])

    def controllerUUIDs(self, update: bool = False) -> list[str]:
        """Database identifiers of this switch's controllers."""
        if update or not self._uuids:
            listed = self.daemons.vsctl("get", "Bridge", self.name, "Controller")
            self._uuids = [word.strip(" []\n") for word in listed.split(",") if word.strip(" []\n")]
        return list(self._uuids)

    def attach(self, intf: Any) -> None:
        """Add a port to the running switch."""
        self.daemons.vsctl("add-port", self.name, str(intf))
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
            self._own.close()
            self._own = None

    @classmethod
    def batchShutdown(cls, switches: Any, run: Any = None) -> list[Any]:
        """Each switch stops itself."""
        return []
