"""A machine of Vagrant's, by the project's own Vagrantfile."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

from testbed.errors import FeatureError, MachineError
from testbed.remote.address import Address
from testbed.remote.progress import Progress
from testbed.remote.project import ROOT
from testbed.remote.providers.base import RUNNING, STOPPED, Provider

PROGRAM = "vagrant"
_INSTALL = "apt-get install vagrant-libvirt"


class Vagrant(Provider):
    """Brought up, provisioned, halted and destroyed by `vagrant`; it has no options here."""

    kind = "vagrant"
    ours = True

    @classmethod
    def missing(cls) -> str:
        """Is the program there, and the Vagrantfile?"""
        if not shutil.which(PROGRAM):
            return f"vagrant is not installed; {_INSTALL}"
        there = (ROOT / "Vagrantfile").is_file()
        return "" if there else f"there is no Vagrantfile in {ROOT}; use a checkout of LiquidNet"

    def up(self, progress: Progress) -> Address:
        """`vagrant up`, which also provisions it the first time."""
        progress.step("vagrant up")
        self._vagrant("up", progress=progress)
        return address(self._vagrant("ssh-config"))

    def state(self) -> str:
        """As Vagrant says."""
        said = self._vagrant("status", "--machine-readable")
        rows = [line.split(",") for line in said.splitlines()]
        states = [row[3] for row in rows if len(row) > 3 and row[2] == "state"]
        state = states[0] if states else "not known"
        return {"running": RUNNING, "poweroff": STOPPED, "shutoff": STOPPED}.get(state, state)

    def down(self, progress: Progress, *, destroy: bool) -> None:
        """`vagrant halt`, or `vagrant destroy`."""
        words = ("destroy", "--force") if destroy else ("halt",)
        progress.step(f"vagrant {words[0]}")
        self._vagrant(*words, progress=progress)

    def _vagrant(self, *words: str, progress: Progress | None = None) -> str:
        """Call it; what it said.  Lines are shown as they come where there is a `progress`."""
        try:
            child = subprocess.Popen(
                [PROGRAM, *words],
                cwd=ROOT,
                env={**os.environ, "VAGRANT_CHECKPOINT_DISABLE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise FeatureError(f"vagrant: {error.strerror}", remedy=_INSTALL) from error
        said: list[str] = []
        with child:
            assert child.stdout is not None
            for line in child.stdout:
                said.append(line)
                if progress:
                    progress.line(line.rstrip())
        if child.returncode:
            lines = "".join(said).strip().splitlines() or ["no reason given"]
            raise MachineError(f"vagrant {words[0]}: {lines[-1].strip()}")
        return "".join(said)


def address(said: str) -> Address:
    """The address in what `vagrant ssh-config` said."""
    from paramiko import SSHConfig

    settings = SSHConfig()
    settings.parse(io.StringIO(said))
    names = [name for name in settings.get_hostnames() if name != "*"]
    if not names:
        raise MachineError("vagrant ssh-config names no host", remedy="vagrant up")
    found = settings.lookup(names[0])
    user = found.get("user", "vagrant")
    return Address(
        host=found["hostname"],
        port=int(found.get("port", 22)),
        user=user,
        keys=tuple(found.get("identityfile", ())),
        through=found.get("proxycommand", ""),
        root=user != "root",
        folder=str(Path("/root" if user == "root" else f"/home/{user}", "liquidnet")),
    )
