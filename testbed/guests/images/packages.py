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


@dataclass(frozen=True)
class Package:
    """A package as apt would download it."""

    file: str
    digest: str

    @property
    def version(self) -> str:
        """NAME=VERSION, as apt-get takes it."""
        name, version, _architecture = self.file.split("_")
        return f"{name}={urllib.parse.unquote(version)}"


def kernel(package: str) -> str:
    """The package of the kernel itself that `package` depends on."""
    said = _apt("apt-cache", "depends", package)
    found = re.search(r"Depends: (linux-image-\S+-amd64)$", said, re.MULTILINE)
    if found is None:
        raise FeatureError(f"apt knows no {package}", remedy="apt-get update")
    return found[1]


def resolve(names: Iterable[str]) -> list[Package]:
    """What apt would download, in the order of `names`."""
    wanted = list(names)
    said = _apt("apt-get", "download", "--print-uris", *wanted)
    found = re.findall(r"^'\S+' (\S+_\S+_\S+)\.deb \d+ (\S+)$", said, re.MULTILINE)
    packages = {file.split("_")[0]: Package(file, digest) for file, digest in found}
    absent = [name for name in wanted if name not in packages]
    if absent:
        raise FeatureError(f"apt serves no {', '.join(absent)}", remedy="apt-get update")
    return [packages[name] for name in wanted]


def unpacked(package: Package) -> Path:
    """The package's content as a folder in the cache, fetched if need be."""
    tree = cache.folder() / "debian" / package.file
    cache.debian_package(package.version, tree)
    return tree


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
