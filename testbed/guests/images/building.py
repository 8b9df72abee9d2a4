"""An image made after its recipe: packages chosen and fetched, then put together."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import FeatureError
from testbed.guests.images import assembly, packages, rootfs, store
from testbed.guests.images.packages import Package
from testbed.guests.images.recipes import AnyRecipe, DiskRecipe, recipe
from testbed.guests.images.store import Image

Progress = Callable[[str, float], None]  # what is done, and how much of it (0 to 1)


def ignore(_step: str, _fraction: float) -> None:
    """A progress that nobody looks at."""


@dataclass(frozen=True)
class Plan:
    """What an image would be made of now: `parts`, the kernel first, and packages `installed`."""

    recipe: AnyRecipe
    parts: list[Package]
    installed: list[Package]
    place: Path

    @property
    def packages(self) -> list[Package]:
        """All of them."""
        return [*self.parts, *self.installed]


def plan(name: str, kernel: str = "") -> Plan:
    """Ask apt; raises `FeatureError` where it does not serve what is wanted."""
    wanted = recipe(name)
    parts = packages.resolve(
        [packages.kernel(wanted.flavour, kernel), *wanted.packages, *wanted.tools]
    )
    installed = packages.closure(wanted.installed) if isinstance(wanted, DiskRecipe) else []
    return Plan(wanted, parts, installed, store.place(name, wanted, [*parts, *installed]))


def build(name: str, kernel: str = "", progress: Progress = ignore) -> Image:
    """Build the image, or find it built of the packages that apt serves now.

    `kernel` is the start of a kernel's version ("6.12") instead of the distribution's choice.
    Raises `FeatureError` where a package cannot be had or lacks what the recipe wants of it.
    """
    if lacks := missing(recipe(name)):
        what, _semicolon, remedy = lacks.partition("; ")
        raise FeatureError(f"image {name}: {what}", remedy=remedy)
    progress("asking apt", 0)
    made = plan(name, kernel)
    if not made.place.is_dir():
        store.write(
            made.place,
            made.recipe,
            made.packages,
            lambda folder: _fill(folder, made, progress),
            version=kernel,
        )
    return store.use(made.place)


def missing(wanted: AnyRecipe) -> str:
    """What this machine lacks for building it ("" if nothing does), with the way to get it."""
    if not shutil.which("depmod", path=assembly.SBIN):
        return "depmod is not installed; apt-get install kmod"
    return rootfs.missing() if isinstance(wanted, DiskRecipe) else ""


def _fill(folder: Path, made: Plan, progress: Progress) -> str:
    """Write the image's files; the kernel's release."""
    trees = []
    for number, package in enumerate(made.parts):
        progress("fetching packages", number / len(made.parts))
        trees.append(packages.unpacked(package))
    kernel, *others = trees
    progress("putting it together", 0)
    if not isinstance(made.recipe, DiskRecipe):
        return assembly.write(folder, made.recipe, kernel, others)
    release = assembly.write(folder, made.recipe.boot, kernel, others)
    rootfs.write(folder, made.recipe, kernel, len(made.installed), progress)
    return release
