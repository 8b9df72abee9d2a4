"""An image made after its recipe: packages chosen and fetched, then put together."""

from __future__ import annotations

import shutil
from pathlib import Path

from testbed.errors import FeatureError
from testbed.guests.images import assembly, packages, rootfs, store
from testbed.guests.images.packages import Package
from testbed.guests.images.recipes import AnyRecipe, DiskRecipe, recipe
from testbed.guests.images.store import Image


def ignore(_step: str, _fraction: float) -> None:
    """A progress that nobody looks at."""


def build(name: str, kernel: str = "", progress: rootfs.Progress = ignore) -> Image:
    """Build the image, or find it built of the packages that apt serves now.

    `kernel` is the start of a kernel's version ("6.12") instead of the distribution's choice.
    `progress` is told what is done, and how much of it (0 to 1).  Raises `FeatureError` where a
    package cannot be had or lacks what the recipe wants of it.
    """
    wanted = recipe(name)
    if lacks := missing(wanted):
        what, _semicolon, remedy = lacks.partition("; ")
        raise FeatureError(f"image {name}: {what}", remedy=remedy)
    progress("looking at packages", 0)
    parts = packages.resolve(
        [packages.kernel(wanted.flavour, kernel), *wanted.packages, *wanted.tools]
    )
    installed = packages.closure(wanted.installed) if isinstance(wanted, DiskRecipe) else []
    place = store.place(name, wanted, [*parts, *installed])
    if not place.is_dir():
        trees = [_unpacked(parts, number, progress) for number in range(len(parts))]

        def fill(folder: Path) -> str:
            return _fill(folder, wanted, trees, len(installed), progress)

        store.write(place, name, wanted, fill)
    return store.use(place)


def missing(wanted: AnyRecipe) -> str:
    """What this machine lacks for building it ("" if nothing does), with the way to get it."""
    if not shutil.which("depmod", path=assembly.SBIN):
        return "depmod is not installed; apt-get install kmod"
    return rootfs.missing() if isinstance(wanted, DiskRecipe) else ""


def _unpacked(parts: list[Package], number: int, progress: rootfs.Progress) -> Path:
    progress(f"fetching {parts[number].name}", number / len(parts))
    return packages.unpacked(parts[number])


def _fill(
    folder: Path, wanted: AnyRecipe, trees: list[Path], expected: int, progress: rootfs.Progress
) -> str:
    kernel, *others = trees
    progress("putting it together", 0)
    if isinstance(wanted, DiskRecipe):
        release = assembly.write(folder, wanted.boot, kernel, others)
        rootfs.write(folder, wanted, kernel, expected, progress)
        return release
    return assembly.write(folder, wanted, kernel, others)
