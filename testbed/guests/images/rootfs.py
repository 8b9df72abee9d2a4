"""A guest's root file system on a disk: made by mmdebstrap, without mounting or booting anything.

As root, or as an ordinary user who has subordinate user ids (subuid(5)): then in a user namespace
of mmdebstrap's.  Nothing of this machine but apt's sources gets into it.
"""

from __future__ import annotations

import getpass
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from testbed.errors import FeatureError
from testbed.guests.images import packages
from testbed.guests.images.assembly import SBIN
from testbed.guests.images.recipes import FULL, DiskRecipe

_PROGRAMS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "qemu-img": "qemu-utils"}
_SUBORDINATE = Path("/etc/subuid")
_WITHOUT = ("man", "doc", "locale")  # of /usr/share
_LINES_OF_A_PACKAGE = 3  # "Get:", "Unpacking", "Setting up"
# in a namespace where the files' owners are kept: standard input and output are archives
_TO_DISK = """
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root"
tar -C "$work/root" -x --exclude './dev/*'
mke2fs -q -t ext4 -L liquidnet -J size=32 -d "$work/root" "$work/disk" "$1" >&2
tar -C "$work" -cS disk
"""


def missing() -> str:
    """What lacks for building one ("" if nothing does), with the way to get it."""
    absent = [name for program, name in _PROGRAMS.items() if not shutil.which(program, path=SBIN)]
    if absent:
        return f"not installed: {', '.join(absent)}; apt-get install {' '.join(absent)}"
    return "" if os.geteuid() == 0 else _no_namespace()


def _no_namespace() -> str:
    """Why an ordinary user cannot keep the owners of files ("" if nothing prevents it)."""
    if not shutil.which("newuidmap", path=SBIN):
        return "not installed: uidmap; apt-get install uidmap, or be root"
    user = getpass.getuser()
    if re.search(rf"^({re.escape(user)}|{os.geteuid()}):", _SUBORDINATE.read_text(), re.MULTILINE):
        return ""
    ids = "--add-subuids 100000-165535 --add-subgids 100000-165535"
    return f"{user} has no subordinate user ids; usermod {ids} {user}, or be root"


def write(
    folder: Path,
    recipe: DiskRecipe,
    kernel: Path,
    expected: int,
    progress: Callable[[str, float], None],
) -> None:
    """Write `disk` (qcow2) into `folder`, with the modules of the unpacked package `kernel`.

    `expected` is how many packages will be installed; `progress` is told what is done, and how
    much of it (0 to 1).
    """
    with tempfile.TemporaryDirectory(dir=folder) as work:
        archive, disk = Path(work, "root.tar"), Path(work, "disk")
        _bootstrap(archive, recipe, lambda done: progress("installing packages", done / expected))
        progress("adding the kernel's modules", 0)
        add(archive, FULL, ".")
        add(archive, kernel / "lib" / "modules", "./usr/lib/modules", without=recipe.without)
        progress("writing the disk", 0)
        with archive.open("rb") as source, tempfile.TemporaryFile() as made:
            _run([*_as_root(), "sh", "-euc", _TO_DISK, "sh", f"{recipe.disk_gb}G"], source, made)
            made.seek(0)
            _run(["tar", "-C", work, "-xS"], made)
        _run(["qemu-img", "convert", "-O", "qcow2", str(disk), str(folder / "disk")])


def _bootstrap(archive: Path, recipe: DiskRecipe, done: Callable[[float], None]) -> None:
    """Write the root file system, as Debian installs it, as an archive; tell of each package."""
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _WITHOUT]
    command = [
        *("mmdebstrap", "--verbose", "--variant=required", "--format=tar", *options),
        *("--dpkgopt=path-include=/usr/share/doc/*/copyright", "--dpkgopt=force-unsafe-io"),
        *("--aptopt=APT::Install-Recommends 0", f"--include={','.join(recipe.installed)}"),
        f"--customize-hook={recipe.customize}",
        *(_suite(), "-", "-"),
    ]
    seen, said = 0, [""]
    with archive.open("wb") as made, tempfile.TemporaryFile("w+") as sources:
        sources.write(packages.sources())
        sources.seek(0)
        child = subprocess.Popen(
            command, stdin=sources, stdout=made, stderr=subprocess.PIPE, env=_environment()
        )
        assert child.stderr is not None
        with child.stderr:
            for line in child.stderr:
                said.append(line.decode(errors="replace").strip())
                if re.match(r"Get:|Unpacking |Setting up ", said[-1]):
                    seen += 1
                    done(seen / _LINES_OF_A_PACKAGE)
    if child.wait():
        errors = [line for line in said if line.startswith(("E:", "dpkg: error"))]
        raise FeatureError(f"mmdebstrap: {[*errors, said[-1]][0]}", remedy="apt-get update")


def _suite() -> str:
    """The release whose packages apt's first source serves."""
    return packages.sources().split()[2]


def add(archive: Path, folder: Path, name: str, without: Sequence[str] = ()) -> None:
    """Append the content of `folder` as `name`, root's and without times."""
    with tarfile.open(archive, "a") as made:
        for path in _below(folder, without):
            entry = made.gettarinfo(path, f"{name}/{path.relative_to(folder)}")
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = "root"
            made.addfile(entry, io.BytesIO(path.read_bytes()) if entry.isreg() else None)


def _below(folder: Path, without: Sequence[str]) -> Iterator[Path]:
    """All below `folder`, parents first, but for paths that have one of `without` in them."""
    for path in sorted(folder.rglob("*")):
        place = f"/{path.relative_to(folder)}/"
        if not any(f"/{name}/" in place for name in without):
            yield path


def _as_root() -> list[str]:
    return [] if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper"]


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": SBIN, "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": "0"}


def _run(
    command: list[str], source: IO[bytes] | None = None, made: IO[bytes] | None = None
) -> None:
    done = subprocess.run(
        command, stdin=source, stdout=made, stderr=subprocess.PIPE, check=False, env=_environment()
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise FeatureError(
            f"{command[0]}: {said[-1]}", remedy="see testbed/guests/images/rootfs.py"
        )
