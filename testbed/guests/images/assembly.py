"""A guest's first root file system: what a recipe wants, picked out of unpacked packages."""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from testbed.errors import FeatureError
from testbed.guests.images import initramfs
from testbed.guests.images.recipes import FILES, Recipe

SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
_RECIPES = "testbed/guests/images/recipes.py"


def write(folder: Path, recipe: Recipe, kernel: Path, trees: list[Path]) -> str:
    """Write the files `kernel` and `initrd` into `folder`; the kernel's release.

    `kernel` is the tree of the kernel's package, `trees` are those of the others.
    """
    image = next((kernel / "boot").glob("vmlinuz-*"))
    release = image.name.removeprefix("vmlinuz-")
    entries = [*_base(recipe), *_programs(recipe, trees), *_modules(recipe, kernel, release)]
    shutil.copyfile(image, folder / "kernel")
    (folder / "initrd").write_bytes(initramfs.archive(entries))
    return release


def _base(recipe: Recipe) -> Iterator[initramfs.Entry]:
    for path in ("dev", "proc", "run", "sys", "tmp", "etc"):
        yield initramfs.directory(path)
    yield initramfs.character_device("dev/console", 5, 1)
    yield initramfs.file("init", (FILES / recipe.init).read_bytes(), executable=True)
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
            remedy=f"add the package to {_RECIPES}",
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
        f"no package of the recipe has {path}", remedy=f"add its package to {_RECIPES}"
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
    path = {"PATH": SBIN}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=path)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise FeatureError(f"{command[0]}: {last}", remedy=f"see {_RECIPES}")
    return done.stdout
