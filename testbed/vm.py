"""The same machine under another kernel: Debian's, booted by QEMU with this machine's files.

For what the kernel here lacks, netem above all.  virtme-ng boots the kernel with the root file
system of the host, read-only below a layer that is thrown away, so what runs in there is this
very testbed.  QEMU translates instructions (TCG): no /dev/kvm is needed, and everything takes
about ten times as long.

The kernel is a Debian package that is unpacked into a cache and never installed.  QEMU runs in a
sandbox, so it cannot outlive its caller.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from testbed import cache
from testbed.errors import ExperimentError, FeatureError
from testbed.sandbox import Sandbox

VIRTME = "virtme-ng==1.42"
_PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "modprobe": "kmod",
}
_GENERIC = re.compile(r"^linux-image-\d+\.\d+\.\d+(?:-\d+)?(?:\+deb\d+)?-amd64$", re.MULTILINE)
_MEMORY = "2G"


def missing() -> str:
    """What lacks for `run` ("" if nothing does), with the way to get it."""
    absent = [
        debian for program, debian in _PROGRAMS.items() if not shutil.which(program, path=_path())
    ]
    if absent:
        return f"not installed: {', '.join(absent)}; apt-get install {' '.join(absent)}"
    lacking = [] if _virtme(fetch=False) else [VIRTME]
    lacking += [] if kernels() else ["a kernel of Debian's"]
    return f"not fetched: {', '.join(lacking)}; testbed bench vm --fetch" if lacking else ""


def fetch(kernel: str = "") -> None:
    """Get virtme-ng and a kernel into the cache; `kernel` is the start of a version ("6.1").

    Raises `FeatureError` where Debian's packages or the package index cannot be reached.
    """
    _virtme(fetch=True)
    if kernels(kernel):
        return
    names = subprocess.run(
        ["apt-cache", "pkgnames", "linux-image-"], capture_output=True, text=True, check=False
    )
    served = [match[0] for match in _GENERIC.finditer(names.stdout) if _is(match[0], kernel)]
    if not served:
        raise FeatureError(
            f"apt knows no kernel {kernel}", remedy="apt-get update, or another version"
        )
    package = max(served, key=_version)
    cache.debian_package(package, _kernel_folder() / package)


def kernels(version: str = "") -> list[Path]:
    """Kernels in the cache whose version starts with `version`, the newest first."""
    found = [
        path for path in _kernel_folder().glob("*/boot/vmlinuz-*") if _is(path.parts[-3], version)
    ]
    return sorted(found, key=lambda path: _version(path.parts[-3]), reverse=True)


def run(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    kernel: str = "",
    cpus: int = 2,
    limit_s: float = 600,
) -> tuple[int, str]:
    """Run a command in the machine, in `folder` (or the current); (exit status, standard output).

    Raises `FeatureError` where something is missing and `ExperimentError` when the machine is
    not done within `limit_s`.
    """
    if lacks := missing():
        what, _semicolon, remedy = lacks.partition("; ")
        raise FeatureError(f"no machine with another kernel: {what}", remedy=remedy)
    images = kernels(kernel)
    if not images:
        raise FeatureError(
            f"no kernel {kernel} in the cache", remedy=f"testbed bench vm --fetch --kernel {kernel}"
        )
    place = shlex.quote(str(folder or Path.cwd()))
    script = f"cd {place} && HOME=/tmp exec {shlex.join(command)}"  # for the machine's sh
    with Sandbox() as sandbox:
        child = sandbox.popen(
            [*_boot(images[0], cpus), "--", script],
            env={**os.environ, "PATH": _path()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        try:
            output, console = child.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired as error:
            sandbox.close()
            child.communicate()
            raise ExperimentError(
                f"the machine with {images[0].name} was not done after {limit_s:.0f} s"
            ) from error
    if "Linux version" not in console:
        last = (console.strip().splitlines() or ["nothing said"])[-1]
        raise ExperimentError(f"the machine with {images[0].name} did not boot: {last}")
    return child.returncode, output


def _boot(kernel: Path, cpus: int) -> list[str]:
    virtme = _virtme(fetch=False)
    assert virtme is not None
    return [
        *(str(virtme / "vng"), "-v", "--run", str(kernel), "--memory", _MEMORY),
        *("--cpus", str(cpus), "--disable-kvm", "--disable-microvm", "--force-9p"),
    ]


def _virtme(*, fetch: bool) -> Path | None:
    """The folder with `vng`: beside our own Python, or in the cache."""
    own = Path(sys.executable).parent
    return own if (own / "vng").exists() else cache.environment("virtme", [VIRTME], fetch=fetch)


def _kernel_folder() -> Path:
    return cache.folder() / "kernels"


def _path() -> str:
    virtme = _virtme(fetch=False)
    words = [str(virtme)] if virtme else []
    return os.pathsep.join([*words, os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def _version(package: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", package)]


def _is(package: str, version: str) -> bool:
    release = package.removeprefix("linux-image-")
    return not version or re.match(rf"{re.escape(version)}(?!\d)", release) is not None
