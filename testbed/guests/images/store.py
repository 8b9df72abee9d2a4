"""Images in the cache, each in a folder under the hash of all that went into it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed import cache
from testbed.guests.images.packages import Package
from testbed.guests.images.recipes import RECIPES, AnyRecipe

_ABANDONED_S = 3600.0  # a folder that is being filled is younger


@dataclass(frozen=True)
class Image:
    """A built image: `kernel` and `initrd` are files, `release` is the kernel's.

    `disk` (qcow2) is a root file system, of images that have one.  It is not to be written to:
    a machine's own layer goes over it.  `hypervisor` is what boots below the kernel, of images
    that have one.  With less than `least_mb` of memory it does not boot.
    """

    name: str
    kernel: Path
    initrd: Path
    release: str
    least_mb: int = 128
    disk: Path | None = None
    hypervisor: Path | None = None

    def describe(self) -> str:
        """Name, kernel and size in words."""
        return f"{self.name} (Linux {self.release}, {self.size / 1e6:.0f} MB)"

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.kernel.parent

    @property
    def size(self) -> int:
        """Bytes that its files occupy."""
        return _occupied(self.folder)

    @property
    def packages(self) -> list[Package]:
        """What it was made of."""
        return [Package(*fields) for fields in _facts(self.folder)["packages"]]


def place(name: str, recipe: AnyRecipe, packages: Sequence[Package]) -> Path:
    """Where the image of these parts is, or will be."""
    key = hashlib.sha256(f"{recipe.hash} {packages!r}".encode()).hexdigest()
    return _folder() / f"{name}-{key[:16]}"


def write(
    place: Path,
    recipe: AnyRecipe,
    packages: Sequence[Package],
    fill: Callable[[Path], str],
    *,
    version: str = "",
) -> None:
    """Have `fill` put the image's files into a folder, which becomes `place` when it succeeded.

    `fill` returns the kernel's release; `version` is the one that was asked for, if one was.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as work:
        made = Path(work, "image")
        made.mkdir()
        facts = {
            "name": place.name.rpartition("-")[0],
            "recipe": recipe.hash,
            "version": version,
            "release": fill(made),
            "least_mb": recipe.least_mb,
            "packages": [(package.file, package.digest) for package in packages],
        }
        (made / "image.json").write_text(json.dumps(facts))
        try:
            made.rename(place)
        except OSError:  # somebody else was quicker
            if not (place / "image.json").exists():
                raise


def use(place: Path) -> Image:
    """The image at `place`, from now on the newest of its name."""
    (place / "image.json").touch()
    return _read(place)


def newest(name: str, recipe: AnyRecipe, version: str = "") -> Image | None:
    """The image used or built last that this very recipe made, with the kernel asked for."""
    for folder in _folders():
        facts = _facts(folder)
        if (facts["name"], facts["recipe"], facts["version"]) == (name, recipe.hash, version):
            return _read(folder)
    return None


def stale() -> list[Path]:
    """Folders of images that no recipe of today makes, or that newer ones replaced.

    Also what a build that was killed left behind.
    """
    kept, found = set[tuple[str, str]](), list[Path]()
    for folder in _folders():
        facts = _facts(folder)
        made_now = facts["name"] in RECIPES and facts["recipe"] == RECIPES[facts["name"]].hash
        if made_now and (facts["name"], facts["version"]) not in kept:
            kept.add((facts["name"], facts["version"]))
        else:
            found.append(folder)
    return [*found, *_abandoned()]


def remove(folders: Sequence[Path]) -> int:
    """Remove folders; how many bytes that freed."""
    freed = sum(_occupied(folder) for folder in folders)
    for folder in folders:
        shutil.rmtree(folder)
    return freed


def _folders() -> Iterator[Path]:
    """Those of all images, the one used or built last first."""
    facts = sorted(_folder().glob("*/image.json"), key=lambda path: path.stat().st_mtime)
    return (path.parent for path in reversed(facts))


def _abandoned() -> list[Path]:
    others = [path for path in _folder().glob("*") if not (path / "image.json").exists()]
    return [path for path in others if time.time() - path.stat().st_mtime > _ABANDONED_S]


def _facts(folder: Path) -> dict[str, Any]:
    """What is known of an image; of one that an earlier release made perhaps not all."""
    unknown = {"name": "", "recipe": "", "version": ""}
    return {**unknown, **json.loads((folder / "image.json").read_text())}


def _read(folder: Path) -> Image:
    facts, disk, hypervisor = _facts(folder), folder / "disk", folder / "hypervisor"
    return Image(
        name=facts["name"],
        kernel=folder / "kernel",
        initrd=folder / "initrd",
        release=facts["release"],
        least_mb=facts["least_mb"],
        disk=disk if disk.exists() else None,
        hypervisor=hypervisor if hypervisor.exists() else None,
    )


def _occupied(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _folder() -> Path:
    return cache.folder() / "images"
