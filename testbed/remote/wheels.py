"""Python packages for a machine that has no way to the package index: a folder of wheels.

They are made here, for the Python here, once for each requirements.lock, and kept in the cache.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from testbed import cache
from testbed.errors import FeatureError, MachineError
from testbed.remote.command import Captured, run
from testbed.remote.connection import Connection

_LOCK = "requirements.lock"
_TAG = "import platform, sys; print(sys.implementation.cache_tag, platform.machine())"
_INDEX = "import socket; socket.create_connection(('pypi.org', 443), 4)"
_LIMIT_S = 60.0  # a translated machine takes seconds to start Python


def index_is_reached(connection: Connection) -> bool:
    """Does that machine reach the package index?"""
    captured = Captured()
    command = ["python3", "-c", _INDEX]
    return run(connection, command, streams=captured, limit_s=_LIMIT_S) == 0


def folder(connection: Connection, root: Path) -> Path:
    """Wheels of all that requirements.lock lists; made if they are not there yet.

    Raises `FeatureError` where they cannot be had, or that machine's Python is another one.
    """
    here, there = f"{sys.implementation.cache_tag} {platform.machine()}", _tag(connection)
    if here != there:
        raise FeatureError(
            f"{connection.name} has {there}, this machine {here}: packages do not fit",
            remedy="give that machine a way to the package index",
        )
    content = (root / _LOCK).read_bytes()
    key = hashlib.sha256(content + here.encode()).hexdigest()[:16]
    place = cache.folder() / "wheels" / key
    if not place.is_dir():
        _make(place, root / _LOCK)
    return place


def _tag(connection: Connection) -> str:
    captured = Captured()
    status = run(connection, ["python3", "-c", _TAG], streams=captured, limit_s=_LIMIT_S)
    if status:
        raise MachineError(f"{connection.name}: python3: {captured.last_words}")
    return captured.output.strip()


def _make(place: Path, lock: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as work:
        made = Path(work, "wheels")
        pip = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check"]
        command = [*pip, "--no-deps", "-r", str(lock), "-w", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["no reason given"]
            raise FeatureError(f"no wheels for another machine: pip: {said[-1].strip()}")
        shutil.move(made, place)
