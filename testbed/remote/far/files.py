"""Files on the far side: the project as it is received, results as they are sent back.

What is received replaces what differs, and what was received earlier and is not listed any more
goes; whatever else is in the folder (results, the Python environment) is not touched.  A file is
written beside its place and renamed, so that a transfer that is cut off leaves no half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from testbed.remote.far.wire import ANSWER, DATA_END, Incoming, Outgoing, Wire, packed

STATE = ".remote"  # folder, in the project there, of what this program knows of it
_SENT = "sent.json"
_RETURNED = "returned.json"
_FIRST = "run.json"  # of a run's files: it says whose the others are, if no more of them arrive
READY = "ready"  # the stamp of what the machine has been set up for


def digest(path: Path) -> str:
    """SHA-256 of a file's content, or of what a symbolic link says; "" where there is neither."""
    if path.is_symlink():
        return hashlib.sha256(os.readlink(path).encode()).hexdigest()
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


# -- received ------------------------------------------------------------------------------------


def receive(wire: Wire, order: dict[str, Any]) -> None:
    """Bring `folder` into the state of the list `files`: [path, mode, size, digest] each.

    Answers with the numbers of those that are wanted, takes an archive of them, and answers again
    when all is in place.
    """
    folder = Path(os.path.expanduser(order["folder"]))
    (folder / STATE).mkdir(parents=True, exist_ok=True)
    listed = order["files"]
    wanted = [number for number, each in enumerate(listed) if not _same(folder, *each)]
    wire.send(ANSWER, packed({"wanted": wanted}))
    data = Incoming(wire)
    with tarfile.open(mode="r|gz", fileobj=data) as archive:
        for member in archive:
            _put(folder, member, archive)
    data.finish()
    record = folder / STATE / _SENT
    paths = {each[0] for each in listed}
    removed = [path for path in _json(record, []) if path not in paths]
    for path in removed:
        _remove(folder, path)
    _write(record, packed(sorted(paths)))
    for name, content in order["notes"].items():
        _write(folder / STATE / name, packed(content))
    ready = _text(folder / STATE / READY)
    wire.send(ANSWER, packed({"removed": len(removed), "folder": str(folder), "ready": ready}))


def _same(folder: Path, path: str, mode: int, size: int, known: str) -> bool:
    try:
        found = os.lstat(folder / path)
    except OSError:
        return False
    if stat.S_ISLNK(found.st_mode):
        return stat.S_ISLNK(mode) and digest(folder / path) == known
    bits = stat.S_IMODE(found.st_mode) == stat.S_IMODE(mode)
    return bits and found.st_size == size and digest(folder / path) == known


def _put(folder: Path, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
    path = folder / member.name
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    beside.unlink(missing_ok=True)
    try:
        if member.issym():
            beside.symlink_to(member.linkname)
        else:
            content = archive.extractfile(member)
            assert content is not None
            with open(beside, "wb") as file:
                while piece := content.read(1 << 20):
                    file.write(piece)
            beside.chmod(member.mode)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _remove(folder: Path, path: str) -> None:
    """Remove a file, and the folders that this leaves empty."""
    (folder / path).unlink(missing_ok=True)
    for parent in Path(path).parents:
        if parent == Path(".") or any((folder / parent).glob("*")):
            return
        if (folder / parent).is_dir():
            (folder / parent).rmdir()


# -- sent back -----------------------------------------------------------------------------------


def send_back(wire: Wire, order: dict[str, Any]) -> None:
    """Send what is new or changed below `paths` since it was last sent back, as an archive.

    What was sent is remembered when the other end says that it has it.
    """
    folder = Path(os.path.expanduser(order["folder"]))
    record = folder / STATE / _RETURNED
    known = _json(record, {})
    found = {str(path.relative_to(folder)): path for path in _below(folder, order["paths"])}
    marks = {name: [path.stat().st_size, path.stat().st_mtime_ns] for name, path in found.items()}
    news = [name for name, mark in marks.items() if known.get(name) != mark]
    size = sum(marks[name][0] for name in news)
    wire.send(ANSWER, packed({"files": len(news), "bytes": size}))
    with tarfile.open(mode="w|gz", fileobj=Outgoing(wire)) as archive:
        for name in news:
            archive.add(found[name], name)
    wire.send(DATA_END)
    wire.receive()
    _write(record, packed({**known, **marks}))
    wire.send(ANSWER, packed({}))


def _below(folder: Path, paths: list[str]) -> Iterator[Path]:
    for path in paths:
        for place, _folders, names in os.walk(folder / path):
            for name in sorted(names, key=lambda name: (name != _FIRST, name)):
                file = Path(place, name)
                if file.is_file() and not file.is_symlink():
                    yield file


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _json(path: Path, otherwise: Any) -> Any:
    text = _text(path)
    return json.loads(text) if text else otherwise


def _write(path: Path, data: bytes) -> None:
    beside = path.with_name(f"{path.name}.part")
    beside.write_bytes(data)
    beside.replace(path)
