"""What goes into each image.  Nothing here looks at a package or writes anything."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import ParameterError

FILES = Path(__file__).parents[1] / "files"


@dataclass(frozen=True)
class Recipe:
    """An image in memory: packages, programs of theirs, kernel modules, the first program.

    `flavour` is that of Debian's kernel: "cloud-amd64" is smaller, "amd64" has all drivers.
    Paths are those in the packages.  Every name of busybox that no program has is a link to it.
    """

    purpose: str  # one line
    least_mb: int  # of memory, to boot
    flavour: str
    packages: tuple[str, ...]
    programs: tuple[str, ...]
    modules: tuple[str, ...]
    init: str  # in FILES
    tools: tuple[str, ...] = ("lz4", "liblz4-1")  # packages that are used to put it together
    optional_modules: tuple[str, ...] = ()  # of some kernels, and part of others
    libraries: tuple[str, ...] = ()  # that programs load when they run
    python: tuple[str, ...] = ()  # modules of the standard library, with all that these import
    version: int = 2  # to be raised when assembly.py puts something else together

    @property
    def hash(self) -> str:
        """Of the recipe, without the packages' content."""
        return hashlib.sha256(repr(self).encode() + (FILES / self.init).read_bytes()).hexdigest()


def recipe(name: str) -> Recipe:
    """The recipe of the image called `name`; `ParameterError` where there is none."""
    if name not in RECIPES:
        raise ParameterError(f"no image is called {name}", remedy=f"one of {', '.join(RECIPES)}")
    return RECIPES[name]


_SHELL = ("bin/busybox", "bin/dash")
_NFT_PACKAGES = (
    *("busybox-static", "dash", "nftables", "libnftables1", "libedit2", "libc6", "libmnl0"),
    *("libnftnl11", "libxtables12", "libjansson4", "libgmp10", "libtinfo6", "libbsd0", "libmd0"),
)
_NFT_MODULES = (
    *("ct", "chain_nat", "nat", "masq", "redir", "limit", "log", "quota", "connlimit", "numgen"),
    *("hash", "fib_inet", "reject_inet"),
)
_MODULES = (
    *("virtio_pci", "virtio_net", "virtio_console", "nf_tables", "nf_conntrack", "nf_nat"),
    *(f"nft_{name}" for name in _NFT_MODULES),
)
_IN_NF_TABLES = ("nft_objref",)  # since Linux 6.2

RECIPES = {
    "function": Recipe(
        purpose="nftables between interfaces: what a network function in a machine needs",
        least_mb=88,
        flavour="cloud-amd64",
        packages=_NFT_PACKAGES,
        programs=(*_SHELL, "usr/sbin/nft"),
        modules=_MODULES,
        optional_modules=_IN_NF_TABLES,
        init="init",
    ),
    "micro": Recipe(
        purpose="a host: ip, ss, nft, Python and a decoder of H.264",
        least_mb=120,
        flavour="cloud-amd64",
        packages=(
            *_NFT_PACKAGES,
            *("iproute2", "libelf1", "libbpf1", "libcap2", "libselinux1", "libpcre2-8-0"),
            *("libtirpc3", "libgssapi-krb5-2", "libkrb5-3", "libk5crypto3", "libcom-err2"),
            *("libkrb5support0", "libkeyutils1"),  # these seven for ss
            *("zlib1g", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
            *("libexpat1", "libffi8", "libopenh264-7", "libstdc++6", "libgcc-s1"),
            *("libyuv0", "libjpeg62-turbo"),
        ),
        programs=(*_SHELL, "usr/sbin/nft", "bin/ip", "bin/ss", "usr/bin/python3.11"),
        libraries=tuple(
            f"usr/lib/x86_64-linux-gnu/{name}" for name in ("libopenh264.so.7", "libyuv.so.0")
        ),
        modules=(*_MODULES, "virtio_rng", "mptcp_diag", "tcp_diag"),
        optional_modules=_IN_NF_TABLES,
        python=(
            *("__future__", "argparse", "array", "asyncio", "base64", "collections", "contextlib"),
            *("ctypes", "ctypes.util", "dataclasses", "datetime", "encodings.idna", "enum"),
            *("errno", "fcntl", "functools", "glob", "hashlib", "heapq", "ipaddress", "itertools"),
            *("json", "logging", "math", "mmap", "os", "pathlib", "pkgutil", "queue", "re"),
            *("runpy", "select", "selectors", "shutil", "signal", "socket", "statistics", "struct"),
            *("subprocess", "tempfile", "threading", "time", "traceback", "typing", "urllib.parse"),
            *("zipfile", "zlib"),
        ),
        init="init",
    ),
}
