"""What goes into each image.  Nothing here looks at a package or writes anything."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import ParameterError

FILES = Path(__file__).parents[1] / "files"


@dataclass(frozen=True)
class Recipe:
    """An image: packages, programs of theirs, kernel modules, the first program.

    `kernel` is a package that depends on the distribution's newest kernel of a kind.
    """

    packages: tuple[str, ...]
    programs: tuple[str, ...]  # paths in the packages
    modules: tuple[str, ...]
    init: str  # in FILES
    optional_modules: tuple[str, ...] = ()  # of some kernels, and part of others
    kernel: str = "linux-image-cloud-amd64"
    version: int = 1  # to be raised when assembly.py puts something else together

    @property
    def hash(self) -> str:
        """Of the recipe, without the packages' content."""
        return hashlib.sha256(repr(self).encode() + (FILES / self.init).read_bytes()).hexdigest()


def recipe(name: str) -> Recipe:
    """The recipe of the image called `name`; `ParameterError` where there is none."""
    if name not in RECIPES:
        raise ParameterError(f"no image is called {name}", remedy=f"one of {', '.join(RECIPES)}")
    return RECIPES[name]


_NFT = (
    *("ct", "chain_nat", "nat", "masq", "redir", "limit", "log", "quota", "connlimit", "numgen"),
    *("hash", "fib_inet", "reject_inet"),
)
RECIPES = {
    "micro": Recipe(
        packages=(
            *("busybox-static", "nftables", "libnftables1", "libedit2", "libc6", "libmnl0"),
            *("libnftnl11", "libxtables12", "libjansson4", "libgmp10", "libtinfo6", "libbsd0"),
            "libmd0",
        ),
        programs=("bin/busybox", "usr/sbin/nft"),
        modules=(
            *("virtio_pci", "virtio_net", "virtio_console", "nf_tables", "nf_conntrack", "nf_nat"),
            *(f"nft_{name}" for name in _NFT),
        ),
        init="init",
        optional_modules=("nft_objref",),  # in nf_tables itself since Linux 6.2
    )
}
