"""The project here: which files make it up, and what a copy of it elsewhere has to know.

The files are those that git tracks, as they are now, and those that it does not know and was not
told to ignore.  A copy has no git: its revision comes along as a note.
"""

from __future__ import annotations

import json
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import FeatureError
from testbed.remote.far.files import STATE, digest

REVISION, MACHINE = "revision.json", "machine.json"  # names of notes
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Entry:
    """A file to be there: path below the root, mode, bytes, SHA-256."""

    path: str
    mode: int
    size: int
    digest: str

    @classmethod
    def of(cls, root: Path, path: str) -> Entry:
        """As it is now."""
        found = (root / path).lstat()
        return cls(path, found.st_mode, found.st_size, digest(root / path))

    @property
    def listed(self) -> list[Any]:
        """As the far side wants it."""
        return [self.path, self.mode, self.size, self.digest]


def entries(root: Path) -> list[Entry]:
    """The project's files; `FeatureError` where this is no git checkout."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if not (root / "setup.sh").is_file() or listed is None:
        raise FeatureError(
            f"{root} is not a git checkout of LiquidNet, so there is nothing to copy",
            remedy="git clone it, or git init and add the files",
        )
    paths = sorted({path for path in listed.split("\0") if path})
    return [Entry.of(root, path) for path in paths if _is_file(root / path)]


def _is_file(path: Path) -> bool:
    """Is it a file or a symbolic link?  What git tracks may have been removed."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def note(name: str) -> dict[str, Any]:
    """A note that came along with a copy of the project; {} in the original."""
    try:
        found: dict[str, Any] = json.loads((ROOT / STATE / name).read_text())
    except (OSError, ValueError):  # the original has none
        return {}
    return found


def _git(root: Path, *arguments: str) -> str | None:
    # safe.directory: the checkout may belong to someone else (sudo)
    command = ["git", "-c", "safe.directory=*", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
