"""Guest images: a kernel and an initial RAM file system, from packages of the distribution only.

Building needs apt's lists and the network; using an image needs neither.  Packages are unpacked
in the cache, never installed.  An image is kept under the hash of all that went into it, and one
that an older recipe made is not used.  The same packages and recipe give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import shutil
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed import cache
from testbed.errors import FeatureError, ParameterError
from testbed.guests import initramfs

_FILES = Path(__file__).parent / "files"
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
_KERNEL = "linux-image-cloud-amd64"  # depends on the distribution's newest of this kind


@dataclass(frozen=True)
class Recipe:
    """What goes into an image: packages, programs of theirs, kernel modules, the first program."""

    packages: tuple[str, ...]
    programs: tuple[str, ...]  # paths in the packages
    modules: tuple[str, ...]
    init: str  # in files/
    optional_modules: tuple[str, ...] = ()  # of some kernels, and part of others
    version: int = 1  # to be raised when the code below puts something else together

    @property
    def hash(self) -> str:
        """Of the recipe, without the packages' content."""
        return _hash(repr(self).encode(), (_FILES / self.init).read_bytes())


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


@dataclass(frozen=True)
class Image:
    """A built image: `kernel` and `initrd` are files, `release` is the kernel's."""

    name: str
    kernel: Path
    initrd: Path
    release: str

    def describe(self) -> str:
        """Name, kernel and size in words."""
        return f"{self.name} (Linux {self.release}, {self.size / 1e6:.0f} MB)"

    @property
    def size(self) -> int:
        """Bytes of both files."""
        return self.kernel.stat().st_size + self.initrd.stat().st_size


def missing(name: str = "micro") -> str:
    """What lacks for guests with this image ("" if nothing does), with the way to get it."""
    if not shutil.which("qemu-system-x86_64", path=_SBIN):
        return "not installed: qemu-system-x86; apt-get install qemu-system-x86"
    lacks = _newest(name) is None
    return f"the image {name} is not built; testbed image build {name}" if lacks else ""


def find(name: str = "micro") -> Image:
    """The image called `name`; `FeatureError` where it or QEMU is missing."""
    if lacks := missing(name):
        what, _semicolon, remedy = lacks.partition("; ")
        raise FeatureError(f"no guest: {what}", remedy=remedy)
    image = _newest(name)
    assert image is not None
    return image


def build(name: str = "micro") -> Image:
    """Build the image, or find it built of the packages that apt serves now.

    Raises `FeatureError` where a package cannot be had or lacks what the recipe wants of it.
    """
    recipe = _recipe(name)
    if not shutil.which("depmod", path=_SBIN):
        raise FeatureError("depmod is not installed", remedy="apt-get install kmod")
    packages = _resolve([_kernel_package(), *recipe.packages])
    place = _folder() / f"{name}-{_hash(recipe.hash.encode(), repr(packages).encode())[:16]}"
    if not place.is_dir():
        trees = [_unpacked(package) for package in packages]
        _write(place, recipe, trees[0], trees[1:])
    else:
        (place / "image.json").touch()
    return _read(place)


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise ParameterError(f"no image is called {name}", remedy=f"one of {', '.join(RECIPES)}")
    return RECIPES[name]


# -- packages ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Package:
    """A package as apt would download it."""

    file: str
    digest: str

    @property
    def version(self) -> str:
        """NAME=VERSION, as apt-get takes it."""
        name, version, _architecture = self.file.split("_")
        return f"{name}={urllib.parse.unquote(version)}"


def _kernel_package() -> str:
    said = _apt("apt-cache", "depends", _KERNEL)
    found = re.search(r"Depends: (linux-image-\S+-cloud-amd64)$", said, re.MULTILINE)
    if found is None:
        raise FeatureError(f"apt knows no {_KERNEL}", remedy="apt-get update")
    return found[1]


def _resolve(names: Iterable[str]) -> list[_Package]:
    """What apt would download, in the order of `names`."""
    wanted = list(names)
    said = _apt("apt-get", "download", "--print-uris", *wanted)
    found = re.findall(r"^'\S+' (\S+_\S+_\S+)\.deb \d+ (\S+)$", said, re.MULTILINE)
    packages = {file.split("_")[0]: _Package(file, digest) for file, digest in found}
    absent = [name for name in wanted if name not in packages]
    if absent:
        raise FeatureError(f"apt serves no {', '.join(absent)}", remedy="apt-get update")
    return [packages[name] for name in wanted]


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


def _unpacked(package: _Package) -> Path:
    tree = cache.folder() / "debian" / package.file
    cache.debian_package(package.version, tree)
    return tree


# -- what is put together ------------------------------------------------------------------------


def _write(place: Path, recipe: Recipe, kernel: Path, trees: list[Path]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    image = next((kernel / "boot").glob("vmlinuz-*"))
    release = image.name.removeprefix("vmlinuz-")
    with tempfile.TemporaryDirectory(dir=place.parent) as work:
        entries = [*_base(recipe), *_programs(recipe, trees), *_modules(recipe, kernel, release)]
        made = Path(work, "image")
        made.mkdir()
        shutil.copyfile(image, made / "kernel")
        (made / "initrd").write_bytes(initramfs.archive(entries))
        facts = {"name": place.name.rpartition("-")[0], "recipe": recipe.hash, "release": release}
        (made / "image.json").write_text(json.dumps(facts))
        made.rename(place)


def _base(recipe: Recipe) -> Iterator[initramfs.Entry]:
    for path in ("dev", "proc", "run", "sys", "tmp", "etc"):
        yield initramfs.directory(path)
    yield initramfs.character_device("dev/console", 5, 1)
    yield initramfs.file("init", (_FILES / recipe.init).read_bytes(), executable=True)
    yield initramfs.link("bin/sh", "busybox")


def _programs(recipe: Recipe, trees: list[Path]) -> Iterator[initramfs.Entry]:
    """The programs and the libraries they load, each where the loader looks for it."""
    for program in recipe.programs:
        path = _in_trees(trees, program)
        name = f"{'sbin' if 'sbin' in program else 'bin'}/{path.name}"
        yield initramfs.file(name, path.read_bytes(), executable=True)
        for wanted, library in _libraries(path, trees):
            yield initramfs.file(wanted, library.read_bytes(), executable=True)


def _libraries(program: Path, trees: list[Path]) -> Iterator[tuple[str, Path]]:
    """(path in the image, file) of each library, by the packages' own loader."""
    loader = _in_trees(trees, "lib64/ld-linux-x86-64.so.2")
    places = [str(tree / folder) for tree in trees for folder in _LIBRARIES]
    command = [str(loader), "--library-path", ":".join(places), "--list", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "statically linked" in done.stdout + done.stderr or "not a dynamic" in done.stderr:
        return
    if absent := re.findall(r"(\S+) => not found|(\S+): cannot open", done.stdout + done.stderr):
        raise FeatureError(
            f"{program.name} needs {absent[0][0] or absent[0][1]}; no package of the recipe has it",
            remedy="add the package to testbed/guests/image.py",
        )
    yield "lib64/ld-linux-x86-64.so.2", loader
    for soname, file in re.findall(r"(\S+) => (\S+) \(", done.stdout):
        if not soname.startswith("/"):
            yield f"{_LIBRARIES[0]}/{soname}", Path(file)


def _in_trees(trees: list[Path], path: str) -> Path:
    for tree in trees:
        if (tree / path).exists():
            return tree / path
    raise FeatureError(
        f"no package of the recipe has {path}", remedy="add its package to testbed/guests/image.py"
    )


def _modules(recipe: Recipe, kernel: Path, release: str) -> Iterator[initramfs.Entry]:
    """The modules in the order in which they load, and a list of them."""
    _tool("depmod", "-b", str(kernel), release)
    ordered: dict[Path, None] = {}
    for module in _present(recipe, kernel / "lib" / "modules" / release):
        said = _tool("modprobe", "-d", str(kernel), "-S", release, "--show-depends", module)
        ordered.update({Path(path): None for path in re.findall(r"^insmod (\S+)", said, re.M)})
    paths = []
    for file in ordered:
        path = f"lib/modules/{file.name.partition('.ko')[0]}.ko"
        paths.append(f"/{path}")
        yield initramfs.file(path, _plain(file))
    yield initramfs.file("etc/modules", "".join(f"{path}\n" for path in paths).encode())


def _present(recipe: Recipe, modules: Path) -> Iterator[str]:
    """The recipe's modules, without the optional ones that this kernel does not have."""
    yield from recipe.modules
    for name in recipe.optional_modules:
        if any(modules.rglob(f"{name}.ko*")):
            yield name


def _plain(module: Path) -> bytes:
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data


def _tool(*command: str) -> str:
    path = {"PATH": _SBIN}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=path)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise FeatureError(f"{command[0]}: {last}", remedy="see testbed/guests/image.py")
    return done.stdout


# -- the cache -----------------------------------------------------------------------------------


def _folder() -> Path:
    return cache.folder() / "images"


def _newest(name: str) -> Image | None:
    """The image used or built last that the recipe of today made."""
    wanted = _recipe(name).hash
    facts = sorted(_folder().glob(f"{name}-*/image.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(facts):
        if json.loads(path.read_text())["recipe"] == wanted:
            return _read(path.parent)
    return None


def _read(place: Path) -> Image:
    facts = json.loads((place / "image.json").read_text())
    return Image(facts["name"], place / "kernel", place / "initrd", facts["release"])


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
