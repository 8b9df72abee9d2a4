"""A machine made ready: the project copied, its packages there, setup.sh run as it is run here."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import Any

from testbed.errors import MachineError
from testbed.remote import project, transfer, wheels
from testbed.remote.command import Captured, run
from testbed.remote.connection import Connection
from testbed.remote.far.files import READY, STATE
from testbed.remote.far.wire import ERRORS
from testbed.remote.progress import Progress
from testbed.run import provenance

_WHEELS = "~/.cache/liquidnet/wheels"
_DECIDE = ("setup.sh", "pyproject.toml", "requirements.lock")
_LIMIT_S = 3600.0


def ready(
    connection: Connection,
    about: dict[str, Any],
    root: Path,
    *,
    offline: bool = False,
    progress: Progress | None = None,
) -> str:
    """Copy what differs, and set up what that changes; the project's folder there.

    `root` is the project here, `about` what runs there say of where they ran.  With `offline`
    Python packages come from this machine in any case; otherwise where that one does not reach
    the package index.

    Raises `MachineError` or `FeatureError` with what failed there, and `LinkLost`.
    """
    progress = progress or Progress()
    progress.step("copying the project")
    notes = {project.REVISION: provenance.revision(), project.MACHINE: about}
    sent = transfer.send(
        connection, root, project.entries(root), connection.address.folder, notes=notes,
        progress=progress,
    )  # fmt: skip
    if sent.ready.strip() != stamp(root):
        _set_up(connection, sent.folder, offline, root, progress)
    return sent.folder


def stamp(root: Path) -> str:
    """Of what decides how a machine is set up."""
    return hashlib.sha256(b"".join((root / name).read_bytes() for name in _DECIDE)).hexdigest()


def _set_up(
    connection: Connection, folder: str, offline: bool, root: Path, progress: Progress
) -> None:
    environment = {}
    progress.step("looking for the package index from there")
    if offline or not wheels.index_is_reached(connection):
        environment = _packages_from_here(connection, root, progress)
    progress.step("setting it up")
    said = _Said(progress)
    script = f"./setup.sh && echo {stamp(root)} >{shlex.quote(f'{STATE}/{READY}')}"
    status = run(
        connection, ["sh", "-c", script], folder=folder, environment=environment, streams=said,
        limit_s=_LIMIT_S,
    )  # fmt: skip
    if status:
        raise MachineError(f"{connection.name} is not set up: {said.last_words}")


def _packages_from_here(connection: Connection, root: Path, progress: Progress) -> dict[str, str]:
    """Copy wheels there; the environment in which pip there uses them and nothing else."""
    progress.step("gathering Python packages here")
    here = wheels.folder(connection, root)
    progress.step("copying Python packages")
    listed = [project.Entry.of(here, path.name) for path in sorted(here.iterdir())]
    sent = transfer.send(connection, here, listed, _WHEELS, progress=progress)
    # the wheels are all that is needed; they are compiled when they are first imported
    settings = {"NO_INDEX": "1", "FIND_LINKS": sent.folder, "NO_DEPS": "1", "COMPILE": "0"}
    return {f"PIP_{name}": value for name, value in settings.items()}


class _Said(Captured):
    """What setup.sh says, kept and shown."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def write(self, kind: bytes, data: bytes) -> None:
        """Keep it; what goes to standard output tells of a step."""
        super().write(kind, data)
        if kind != ERRORS:
            for line in data.decode(errors="replace").splitlines():
                self._progress.line(line)
