"""A guest's first root file system: what a recipe wants, picked out of unpacked packages."""

from __future__ import annotations

import gzip
import lzma
import re
import subprocess
from collections.abc import Iterator, Set
from pathlib import Path

from testbed.errors import FeatureError
from testbed.guests.images import initramfs, python
from testbed.guests.images.kernel import bootable
from testbed.guests.images.recipes import FILES, Recipe

SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
_NO_LINKS = ("init", "linuxrc")  # the kernel would start them where the image's own program fails
_LOADER = "lib64/ld-linux-x86-64.so.2"
_RECIPES = "testbed/guests/images/recipes.py"


def write(folder: Path, recipe: Recipe, kernel: Path, trees: list[Path]) -> str:
    """Write the files `kernel`, `initrd` and maybe `hypervisor` into `folder`; kernel's release.

    `kernel` is the tree of the kernel's package, `trees` are those of the others.
    """
    image = next((kernel / "boot").glob("vmlinuz-*"))
    release = image.name.removeprefix("vmlinuz-")
    (folder / "kernel").write_bytes(bootable(image.read_bytes()))
    entries = [*_base(recipe), *_programs(recipe, trees), *_modules(recipe, kernel, release)]
    (folder / "initrd").write_bytes(_packed(initramfs.archive(entries), trees))
    if recipe.hypervisor:
        packed = _in_trees(trees, recipe.hypervisor).read_bytes()
        (folder / "hypervisor").write_bytes(gzip.decompress(packed))
    return release


def _packed(archive: bytes, trees: list[Path]) -> bytes:
    """In LZ4's legacy format, the only one of its formats that the kernel unpacks.

    A guest unpacks it no slower than it would copy the archive itself, and has room for both only
    if the one is small.
    """
    command = [*_loader(trees), str(_in_trees(trees, "usr/bin/lz4")), "-l", "-9", "-c"]
    return subprocess.run(command, input=archive, capture_output=True, check=True).stdout


def _base(recipe: Recipe) -> Iterator[initramfs.Entry]:
    for path in ("dev", "proc", "run", "sys", "tmp", "etc", "root"):
        yield initramfs.directory(path)
    yield initramfs.link("usr", ".")  # so that /usr/bin and /usr/lib are there too
    yield initramfs.character_device("dev/console", 5, 1)
    for path, name in (("init", recipe.init), *recipe.files):
        yield initramfs.file(path, (FILES / name).read_bytes(), executable=True)


def _programs(recipe: Recipe, trees: list[Path]) -> Iterator[initramfs.Entry]:
    """The programs, what stands for them, and what they load."""
    names = {}
    for program in recipe.programs:
        path = _in_trees(trees, program)
        names[path.name] = f"{'sbin' if 'sbin' in program else 'bin'}/{path.name}"
        yield from _with_libraries(names[path.name], path, trees)
    for library in recipe.libraries:
        path = _in_trees(trees, library)
        yield from _with_libraries(f"{_LIBRARIES[0]}/{path.name}", path, trees)
    if "dash" in names:
        yield initramfs.link("bin/sh", "dash")
        names["sh"] = "bin/sh"
    yield from _applets(_in_trees(trees, "bin/busybox"), {*names, *_NO_LINKS})
    if recipe.python:
        yield from _python(recipe, trees)


def _applets(busybox: Path, taken: Set[str]) -> Iterator[initramfs.Entry]:
    """A link for each name of busybox that is not `taken`."""
    for name in _tool(str(busybox), "--list").split():
        if name not in taken:
            yield initramfs.link(f"bin/{name}", "busybox")


def _python(recipe: Recipe, trees: list[Path]) -> Iterator[initramfs.Entry]:
    program = next(name for name in recipe.programs if "python" in name)
    interpreter = [*_loader(trees), str(_in_trees(trees, program))]
    yield initramfs.link("bin/python3", Path(program).name)
    for name, file in python.modules(interpreter, trees, recipe.python):
        if file.suffix == ".so":
            yield from _with_libraries(name, file, trees)
        else:
            yield initramfs.file(name, file.read_bytes())


def _with_libraries(name: str, path: Path, trees: list[Path]) -> Iterator[initramfs.Entry]:
    """The file `path` as `name`, and the libraries it loads where the loader looks for them."""
    yield initramfs.file(name, path.read_bytes(), executable=True)
    for wanted, library in _libraries(path, trees):
        yield initramfs.file(wanted, library.read_bytes(), executable=True)


def _loader(trees: list[Path]) -> list[str]:
    """The words that start a program of the packages with the packages' libraries."""
    places = [str(tree / folder) for tree in trees for folder in _LIBRARIES]
    return [str(_in_trees(trees, _LOADER)), "--library-path", ":".join(places)]


def _libraries(program: Path, trees: list[Path]) -> Iterator[tuple[str, Path]]:
    """(path in the image, file) of each library, by the packages' own loader."""
    command = [*_loader(trees), "--list", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "statically linked" in done.stdout + done.stderr or "not a dynamic" in done.stderr:
        return
    absent = re.findall(r"(\S+) => not found|(\S+): cannot open", done.stdout + done.stderr)
    found = re.findall(r"^\s(?!/)(\S+) => (/\S+) \(", done.stdout, re.MULTILINE)
    # the loader falls back to this machine's own libraries
    absent += [
        (name, "") for name, file in found if not any(tree in Path(file).parents for tree in trees)
    ]
    if absent:
        raise FeatureError(
            f"{program.name} needs {absent[0][0] or absent[0][1]}; no package of the recipe has it",
            remedy=f"add the package to {_RECIPES}",
        )
    yield _LOADER, _in_trees(trees, _LOADER)
    for soname, file in found:
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
