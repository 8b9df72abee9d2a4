"""Files between the two machines: only what differs, as one compressed stream.

What comes back is written below one folder, as regular files, whatever the other side calls them.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from testbed.errors import ExperimentError, MachineError
from testbed.remote.connection import Connection
from testbed.remote.far.wire import DATA_END, Incoming, Outgoing
from testbed.remote.progress import Progress
from testbed.remote.project import Entry
from testbed.remote.session import Session


@dataclass(frozen=True)
class Sent:
    """What was done there: files and bytes that differed, files removed, and where it all is."""

    files: int
    bytes: int
    removed: int
    folder: str
    ready: str  # the stamp that setting up left there


def send(
    connection: Connection,
    root: Path,
    entries: Sequence[Entry],
    folder: str,
    *,
    notes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Sent:
    """Make `folder` there hold these files of `root`; `notes` are left beside them.

    Raises `MachineError` where they cannot be written, a full disk for one, and `LinkLost`.
    """
    progress = progress or Progress()
    order = {
        "do": "receive",
        "folder": folder,
        "files": [each.listed for each in entries],
        "notes": dict(notes or {}),
    }
    with Session(connection, order) as session:
        wanted = [entries[number] for number in session.answer()["wanted"]]
        total = sum(each.size for each in wanted)
        _send_archive(session, root, wanted, progress, total)
        done = session.answer()
    return Sent(len(wanted), total, done["removed"], done["folder"], done["ready"])


def _send_archive(
    session: Session, root: Path, wanted: Sequence[Entry], progress: Progress, total: int
) -> None:
    done = 0
    with tarfile.open(mode="w|gz", fileobj=Outgoing(session)) as archive:
        for each in wanted:
            archive.add(root / each.path, each.path, recursive=False)
            done += each.size
            progress.moved(done, total)
    session.send(DATA_END)


# -- back ----------------------------------------------------------------------------------------


def bring(
    connection: Connection,
    folder: str,
    paths: Sequence[str],
    into: Path,
    *,
    progress: Progress | None = None,
) -> list[Path]:
    """Bring what is new or changed below `paths` of `folder` there to the same paths here.

    Returns the folders of runs that came.  A run that is here already and did not come from that
    machine is left alone: the new one's name is followed by the machine's.
    """
    progress = progress or Progress()
    order = {"do": "send back", "folder": folder, "paths": list(paths)}
    with Session(connection, order) as session:
        total = session.answer()["bytes"]
        placed = Placed(into, paths, connection.name)
        _extract(session, placed, progress, total)
        session.send(DATA_END)
        session.answer()
    return placed.runs


class Placed:
    """Where each file that comes back goes."""

    def __init__(self, into: Path, paths: Sequence[str], machine: str) -> None:
        self._into = into.resolve()
        self._paths = [PurePosixPath(path) for path in paths]
        self._machine = machine
        self._runs: dict[PurePosixPath, PurePosixPath] = {}

    def place(self, name: str) -> Path:
        """Where the file called `name` there goes; `ExperimentError` where it has no business."""
        path = PurePosixPath(name)
        allowed = any(path.is_relative_to(each) for each in self._paths)
        if ".." in path.parts or not allowed:
            raise ExperimentError(f"{self._machine} sends {name}, which was not asked for")
        place = self._into / self._renamed(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.parent.resolve().is_relative_to(self._into):
            raise ExperimentError(f"{place.parent} leads out of {self._into}; nothing is put there")
        return place

    @property
    def runs(self) -> list[Path]:
        """The folders of runs, as they are here."""
        places = [self._into / here for here in self._runs.values()]
        return [place for place in places if (place / "run.json").is_file()]

    def _renamed(self, path: PurePosixPath) -> PurePosixPath:
        """The path below its run's folder, RESULTS/USE-CASE/RUN, which may have another name."""
        (root,) = (each for each in self._paths if path.is_relative_to(each))
        parts = path.relative_to(root).parts
        if len(parts) < 3:
            return path
        run = root.joinpath(*parts[:2])
        if run not in self._runs:
            self._runs[run] = run if self._is_free(run) else self._other(run)
        return self._runs[run].joinpath(*parts[2:])

    def _other(self, run: PurePosixPath) -> PurePosixPath:
        return run.with_name(f"{run.name}-{self._machine}")

    def _is_free(self, run: PurePosixPath) -> bool:
        place = self._into / run
        if not place.exists():
            return True
        try:
            machine = json.loads((place / "run.json").read_text())["machine"]
        except (OSError, ValueError, KeyError):
            return False
        return bool(machine.get("remote", {}).get("name") == self._machine)


def _extract(session: Session, placed: Placed, progress: Progress, total: int) -> None:
    """Write the files of the archive as it comes."""
    done = 0
    data = Incoming(session)
    with tarfile.open(mode="r|gz", fileobj=data) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                raise ExperimentError(f"{session.name} sends {member.name}, which is no file")
            _write(placed.place(member.name), content)
            done += member.size
            progress.moved(done, total)
    data.finish()


def _write(place: Path, content: IO[bytes]) -> None:
    beside = place.with_name(f".{place.name}.part")
    try:
        with open(beside, "wb") as file:
            shutil.copyfileobj(content, file)
        beside.replace(place)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise MachineError(f"{place} cannot be written: {error.strerror}") from error
