"""Images for guests: a kernel and a root file system, from packages of the distribution only.

    recipes     what goes into each image
    packages    Debian packages as apt serves them, unpacked in the cache and never installed
    building    from a recipe to an image
    assembly    programs with their libraries, and kernel modules, picked out of packages
    kernel      the file that a guest's kernel starts from
    python      Python's standard library, or as much of it as is asked for
    initramfs   the archive that a guest's first root file system travels in
    rootfs      a whole system on a disk
    store       images in the cache, each under the hash of all that went into it

Building needs apt's lists and the network; using an image needs neither.  The same recipe and
packages give the same bytes.  An image that an older recipe made is not used.
"""

from __future__ import annotations

import shutil

from testbed.errors import FeatureError
from testbed.guests.images import assembly, store
from testbed.guests.images.building import build
from testbed.guests.images.recipes import RECIPES, recipe
from testbed.guests.images.store import Image

__all__ = ["RECIPES", "Image", "build", "find", "how_to_build", "missing"]


def missing(name: str = "micro", kernel: str = "") -> str:
    """What lacks for guests with this image ("" if nothing does), with the way to get it.

    `kernel` is what `build` was given.
    """
    if not shutil.which("qemu-system-x86_64", path=assembly.SBIN):
        return "not installed: qemu-system-x86; apt-get install qemu-system-x86"
    if store.newest(name, recipe(name), kernel):
        return ""
    how = how_to_build(name, kernel)
    return f"the image {name}{f' with Linux {kernel}' if kernel else ''} is not built; {how}"


def how_to_build(name: str, kernel: str = "") -> str:
    """The command that builds an image."""
    return f"testbed image build {name}" + (f" --kernel {kernel}" if kernel else "")


def find(name: str = "micro", kernel: str = "") -> Image:
    """The image called `name`; `FeatureError` where it or QEMU is missing."""
    if lacks := missing(name, kernel):
        what, _semicolon, remedy = lacks.partition("; ")
        raise FeatureError(f"no guest: {what}", remedy=remedy)
    image = store.newest(name, recipe(name), kernel)
    assert image is not None
    return image
