"""Software that is not ours to install: fetched when asked, into a folder that may be deleted.

The folder is `liquidnet` in $XDG_CACHE_HOME (or ~/.cache).  Fetching needs the network; using
what is there does not.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from testbed.errors import FeatureError


def folder() -> Path:
    """Where fetched things are; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "liquidnet"


def environment(name: str, requirements: Sequence[str], *, fetch: bool) -> Path | None:
    """The `bin` folder of a Python environment with `requirements`; None where there is none.

    With `fetch` it is made if need be.  Raises `FeatureError`, with the last line pip said, when
    that fails.
    """
    place = folder() / name
    stamp = place / "requirements"
    wanted = "\n".join(requirements)
    if stamp.is_file() and stamp.read_text() == wanted:
        return place / "bin"
    if not fetch:
        return None
    shutil.rmtree(place, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(place)], f"environment {name}")
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-q"]
    _run([*pip, "--disable-pip-version-check", *requirements], " ".join(requirements))
    stamp.write_text(wanted)
    return place / "bin"


def debian_package(package: str, into: Path) -> None:
    """Download a Debian package and unpack it as the folder `into`, without installing it.

    Raises `FeatureError` when that fails.
    """
    if into.is_dir():
        return
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as work:
        _run(["apt-get", "download", "-q", package], package, cwd=work)
        (archive,) = Path(work).glob("*.deb")
        _run(["dpkg", "-x", str(archive), f"{work}/tree"], package)
        try:
            Path(work, "tree").rename(into)
        except OSError:  # somebody else was quicker
            if not into.is_dir():
                raise


def _run(command: list[str], what: str, cwd: str | None = None) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    except OSError as error:
        raise FeatureError(f"cannot get {what}: {command[0]}: {error.strerror}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no reason given"]
        named = [line for line in said if re.search(r"\w(Error|Exception): ", line)]
        raise FeatureError(f"cannot get {what}: {(named or said)[-1].strip()}")
