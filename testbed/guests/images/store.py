"""Images in the cache, each in a folder under the hash of all that went into it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import cache
from testbed.guests.images.packages import Package
from testbed.guests.images.recipes import AnyRecipe


@dataclass(frozen=True)
class Image:
    """A built image: `kernel` and `initrd` are files, `release` is the kernel's.

    `disk` (qcow2) is a root file system, of images that have one.  It is not to be written to:
    a machine's own layer goes over it.  With less than `least_mb` of memory it does not boot.
    """

    name: str
    kernel: Path
    initrd: Path
    release: str
    least_mb: int = 128
    disk: Path | None = None

    def describe(self) -> str:
        """Name, kernel and size in words."""
        return f"{self.name} (Linux {self.release}, {self.size / 1e6:.0f} MB)"

    @property
    def size(self) -> int:
        """Bytes that its files occupy."""
        files = [file for file in (self.kernel, self.initrd, self.disk) if file]
        return sum(file.stat().st_blocks * 512 for file in files)


def place(name: str, recipe: AnyRecipe, packages: Sequence[Package]) -> Path:
    """Where the image of these parts is, or will be."""
    key = hashlib.sha256(f"{recipe.hash} {packages!r}".encode()).hexdigest()
    return _folder() / f"{name}-{key[:16]}"


def write(place: Path, name: str, recipe: AnyRecipe, fill: Callable[[Path], str]) -> None:
    """Have `fill` put the image's files into a folder, which becomes `place` when it succeeded.

    `fill` returns the kernel's release.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as work:
        made = Path(work, "image")
        made.mkdir()
        facts = {
            "name": name,
            "recipe": recipe.hash,
            "release": fill(made),
            "least_mb": recipe.least_mb,
        }
        (made / "image.json").write_text(json.dumps(facts))
        made.rename(place)


def use(place: Path) -> Image:
    """The image at `place`, from now on the newest of its name."""
    (place / "image.json").touch()
    return _read(place)


def newest(name: str, recipe: AnyRecipe) -> Image | None:
    """The image used or built last that this very recipe made."""
    facts = sorted(_folder().glob(f"{name}-*/image.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(facts):
        if json.loads(path.read_text())["recipe"] == recipe.hash:
            return _read(path.parent)
    return None


def _read(place: Path) -> Image:
    facts = json.loads((place / "image.json").read_text())
    disk = place / "disk"
    return Image(
        name=facts["name"],
        kernel=place / "kernel",
        initrd=place / "initrd",
        release=facts["release"],
        least_mb=facts["least_mb"],
        disk=disk if disk.exists() else None,
    )


def _folder() -> Path:
    return cache.folder() / "images"
