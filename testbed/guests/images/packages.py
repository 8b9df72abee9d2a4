"""Debian packages as apt serves them: which they are now, and their content in the cache."""

from __future__ import annotations

import re
import subprocess
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from testbed import cache
from testbed.errors import FeatureError

_URI = re.compile(r"^'\S+' (\S+_\S+_\S+)\.deb \d+ (\S+)$", re.MULTILINE)
_BASE = ("?essential", "?priority(required)")  # of every system


@dataclass(frozen=True, order=True)
class Package:
    """A package as apt would download it."""

    file: str
    digest: str

    @property
    def name(self) -> str:
        """The package's name."""
        return self.file.partition("_")[0]

    @property
    def version(self) -> str:
        """The package's version."""
        return urllib.parse.unquote(self.file.split("_")[1])


def kernel(flavour: str, version: str = "") -> str:
    """The package with the kernel of a flavour that the distribution prefers.

    With `version`, the newest that begins with it ("6.12").
    """
    if not version:
        said = _apt("apt-cache", "depends", f"linux-image-{flavour}")
        served: list[str] = re.findall(r"Depends: (linux-image-\d\S+)$", said, re.MULTILINE)
    else:
        said = _apt("apt-cache", "pkgnames", f"linux-image-{version}")
        pattern = rf"^linux-image-{re.escape(version)}(?!\d)[\d.]*(?:-\d+)?(?:\+deb\d+)?-{flavour}$"
        served = re.findall(pattern, said, re.MULTILINE)
    if not served:
        raise FeatureError(
            f"apt knows no kernel {version} {flavour}".replace("  ", " "), remedy="apt-get update"
        )
    return max(served, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def resolve(names: Iterable[str]) -> list[Package]:
    """What apt would download, in the order of `names`."""
    wanted = list(names)
    said = _apt("apt-get", "download", "--print-uris", *wanted)
    found = (Package(*fields) for fields in _URI.findall(said))
    packages = {package.name: package for package in found}
    absent = [name for name in wanted if name not in packages]
    if absent:
        raise FeatureError(f"apt serves no {', '.join(absent)}", remedy="apt-get update")
    return [packages[name] for name in wanted]


def closure(names: Iterable[str]) -> list[Package]:
    """What apt would install of `names`, with all they depend on, where nothing is installed."""
    nothing = ("-o", "Dir::State::status=/dev/null", "-o", "APT::Install-Recommends=0")
    said = _apt("apt-get", *nothing, "-qq", "--print-uris", "install", *_BASE, *names)
    return sorted(Package(*fields) for fields in _URI.findall(said))


def sources() -> str:
    """apt's sources of the distribution, without those of anybody else, as for sources.list."""
    fields = "$(ORIGIN) deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    said = _apt("apt-get", "indextargets", "--format", fields, "Created-By: Packages")
    lines = dict.fromkeys(re.findall(r"^Debian (deb .*)$", said, re.MULTILINE))
    if not lines:
        raise FeatureError("apt has no lists of Debian's packages", remedy="apt-get update")
    return "".join(f"{line}\n" for line in lines)


def unpacked_ones() -> list[Path]:
    """Folders of all that `unpacked` fetched."""
    return sorted(_folder().glob("*"))


def unpacked(package: Package) -> Path:
    """The package's content as a folder in the cache, fetched if need be."""
    tree = _folder() / package.file
    cache.debian_package(f"{package.name}={package.version}", tree)
    return tree


def _folder() -> Path:
    return cache.folder() / "debian"


def _apt(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise FeatureError(
            "images are made of Debian's packages, and there is no apt here",
            remedy="build one on a Debian machine and copy ~/.cache/liquidnet/images",
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise FeatureError(f"{' '.join(command[:2])}: {last}", remedy="apt-get update")
    return done.stdout
