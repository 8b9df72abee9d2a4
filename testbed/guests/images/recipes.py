"""What goes into each image.  Nothing here looks at a package or writes anything."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import FeatureError, ParameterError

FILES = Path(__file__).parents[1] / "files"
FULL = Path(__file__).with_name("full")
_SETUP = Path(__file__).parents[3] / "setup.sh"


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
    files: tuple[tuple[str, str], ...] = ()  # (path in the image, file in FILES), executable
    hypervisor: str = ""  # what boots below the kernel, in a package and packed by gzip
    version: int = 3  # to be raised when assembly.py puts something else together

    @property
    def hash(self) -> str:
        """Of the recipe, without the packages' content."""
        names = (self.init, *(name for _path, name in self.files))
        contents = (FILES.joinpath(name).read_bytes() for name in names)
        return hashlib.sha256(b"\0".join((repr(self).encode(), *contents))).hexdigest()


@dataclass(frozen=True)
class DiskRecipe:
    """An image with a disk: a root file system of Debian's with packages installed in it.

    `boot` finds the disk and starts the system on it, which is what `system` names and what
    setup.sh installs, with all that they depend on.  `customize` is shell that is run when they
    are installed, with the root as $1.  The files below FULL are added, and the kernel's modules
    but for those in the folders `without`.
    """

    purpose: str
    least_mb: int
    boot: Recipe
    system: tuple[str, ...]
    customize: str
    without: tuple[str, ...]
    disk_gb: int
    version: int = 1  # to be raised when rootfs.py puts something else together

    @property
    def flavour(self) -> str:
        """The kernel's."""
        return self.boot.flavour

    @property
    def packages(self) -> tuple[str, ...]:
        """Of what boots; what is installed is not among them."""
        return self.boot.packages

    @property
    def tools(self) -> tuple[str, ...]:
        """Of what boots."""
        return self.boot.tools

    @property
    def installed(self) -> tuple[str, ...]:
        """The packages that are asked for; what these depend on is not among them.

        Raises `FeatureError` where setup.sh is not there to tell.
        """
        return (*self.system, *_packages_of_the_project())

    @property
    def hash(self) -> str:
        """Of the recipe, without the packages' content."""
        files = (path for path in FULL.rglob("*") if path.is_file())
        added = sorted((str(path.relative_to(FULL)), path.read_bytes()) for path in files)
        parts = (self, self.boot.hash, self.installed, added)
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def _packages_of_the_project() -> tuple[str, ...]:
    text = _SETUP.read_text() if _SETUP.is_file() else ""
    found = re.search(r'^PACKAGES="([^"]*)"', text, re.MULTILINE)
    if found is None:
        raise FeatureError(
            f"{_SETUP} does not say what the testbed takes", remedy="build it from a checkout"
        )
    return tuple(found[1].split())


AnyRecipe = Recipe | DiskRecipe


def recipe(name: str) -> AnyRecipe:
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

_ON_XEN = ("xen_netfront",)
_XEN_PACKAGES = (
    *("xen-utils-4.17", "xenstore-utils", "libxenmisc4.17", "libxencall1", "libxenevtchn1"),
    *("libxenforeignmemory1", "libxengnttab1", "libxenstore4", "libxentoollog1", "libxenhypfs1"),
    *("libxentoolcore1", "libxendevicemodel1", "libyajl2", "libext2fs2", "libcom-err2", "libuuid1"),
    *("liblzma5", "libzstd1", "zlib1g", "libtinfo6", "libncurses6", "libgcc-s1"),
)
_XEN_PROGRAMS = ("xl", "xenstored", "xenconsoled", "xen-init-dom0", "libxl-save-helper")

# The project starts switches of its own, and nothing is done behind a measurement's back.
_CUSTOMIZE = """
chroot "$1" useradd --create-home --shell /bin/bash --uid 1000 vagrant
echo "vagrant ALL=(ALL) NOPASSWD: ALL" >"$1/etc/sudoers.d/vagrant"
chroot "$1" systemctl -q enable systemd-networkd
chroot "$1" systemctl -q disable openvswitch-switch openvswitch-testcontroller
chroot "$1" systemctl -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \\
    e2scrub_all.timer e2scrub_reap.service fstrim.timer
rm -f "$1"/etc/ssh/ssh_host_*
"""

RECIPES: dict[str, AnyRecipe] = {
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
        modules=(*_MODULES, *_ON_XEN, "virtio_rng", "mptcp_diag", "tcp_diag"),
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
    "full": DiskRecipe(
        purpose="a system in which the testbed runs: all it takes of Debian, under systemd",
        least_mb=384,
        boot=Recipe(
            purpose="finds the disk of full",
            least_mb=384,
            flavour="amd64",  # has netem, VRF, MPLS, Open vSwitch and mac80211_hwsim
            packages=("busybox-static", "libc6"),
            programs=("bin/busybox",),
            modules=("virtio_pci", "virtio_blk", "ext4"),
            init="init-disk",
        ),
        system=(
            *("apt", "ca-certificates", "dbus", "kmod", "libpam-systemd", "netbase", "procps"),
            *("openssh-server", "python3", "python3-venv", "rsync", "sudo", "systemd-resolved"),
            *("systemd-sysv", "udev"),
        ),
        customize=_CUSTOMIZE,
        without=(
            *(f"drivers/{name}" for name in ("gpu", "iio", "infiniband", "media", "staging")),
            "sound",
        ),
        disk_gb=10,
    ),
    "xen": Recipe(
        purpose="a Xen host: hypervisor, dom0 and xl",
        least_mb=1024,  # 768 of them are the dom0's, which keeps saved states in memory
        flavour="amd64",  # the cloud flavour cannot be a dom0
        hypervisor="boot/xen-4.17-amd64.gz",
        packages=(
            *("xen-hypervisor-4.17-amd64", *_XEN_PACKAGES, "libc6", "busybox-static", "dash"),
            *("iproute2", "libmnl0", "libelf1", "libbpf1", "libcap2", "libbsd0", "libmd0"),
            *("netcat-openbsd", "lz4", "liblz4-1"),
        ),
        programs=(
            *(*_SHELL, "bin/ip", "bin/nc.openbsd", "usr/bin/lz4"),
            *("usr/bin/xenstore-read", "usr/bin/xenstore-write"),
            *(f"usr/lib/xen-4.17/bin/{name}" for name in _XEN_PROGRAMS),
        ),
        libraries=("lib/x86_64-linux-gnu/libgcc_s.so.1",),  # for pthread_cancel
        modules=(
            *("virtio_pci", "virtio_console", "virtio_net", "bridge", "xenfs", "xen_privcmd"),
            *("xen_evtchn", "xen_gntdev", "xen_netback"),
        ),
        init="init",
        files=(("etc/start", "xen-start"), ("etc/xen/scripts/vif-liquidnet", "xen-vif")),
    ),
}
