"""The player in one file, to be put into a guest and run there: `python3 player.pyz URL`.

It has the player's modules and what they import of the project, compiled and as text: where the
guest's Python is another version than ours, it takes the text.
"""

from __future__ import annotations

import io
import py_compile
import shutil
import tempfile
import zipapp
from importlib.resources import files
from pathlib import Path

PLAYER = "traffic.live.player"
"""The package that is run."""
# All that it imports of the project: a test compares it with what a run really loads.
_MODULES = (
    *("testbed", "testbed.errors", "traffic", "traffic.emit", "traffic.playout"),
    *("traffic.program", "traffic.live", "traffic.web", "traffic.web.http"),
)


def player_archive() -> bytes:
    """The archive: an executable zip file (PEP 441)."""
    made = io.BytesIO()
    with tempfile.TemporaryDirectory() as work:
        for name in (*_MODULES, *_modules_of(PLAYER)):
            _stage(name, Path(work))
        zipapp.create_archive(work, made, interpreter="/usr/bin/env python3", compressed=True)
    return made.getvalue()


def _modules_of(package: str) -> list[str]:
    names = sorted(item.name for item in files(package).iterdir() if item.name.endswith(".py"))
    modules = (name.removesuffix(".py") for name in names)
    return [package, *(f"{package}.{name}" for name in modules if name != "__init__")]


def _stage(name: str, work: Path) -> None:
    """Put a module where an import from the archive looks for it."""
    source = Path(str(files(name.partition(".")[0]))).parent / name.replace(".", "/")
    source = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
    inside = source.relative_to(source.parents[name.count(".") + (source.name == "__init__.py")])
    target = work / ("__main__.py" if name == f"{PLAYER}.__main__" else inside)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    # unchecked: there are no times of files in a guest to compare with
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(
        str(source), str(target) + "c", str(inside), doraise=True, invalidation_mode=unchecked
    )
