"""Run by an image's own Python: compile modules, with all that importing them imports.

    compile_modules.py FOLDER MODULE...

Writes .pyc files, where an interpreter without sources looks for them, and copies extensions.
Nothing of the testbed is imported here, and nothing that is not used in there either.
"""

import importlib
import importlib.util
import marshal
import os
import sys

# of libraries that no guest needs: their importers do without
ABSENT = ("_ssl", "_hashlib", "_bz2", "_lzma", "readline", "_uuid")


def main(folder: str, names: list[str]) -> None:
    """Import the modules, and write what was imported."""
    sys.modules.update(dict.fromkeys(ABSENT))  # type: ignore[arg-type]
    for name in names:
        importlib.import_module(name)
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name != "__main__" and file:
            write(folder, name, file, hasattr(module, "__path__"))


def write(folder: str, name: str, file: str, is_package: bool) -> None:
    """Write one module below the folder."""
    if file.endswith(".so"):
        place = os.path.join(folder, "lib-dynload", os.path.basename(file))
    else:
        words = name.split(".") + (["__init__"] if is_package else [])
        place = os.path.join(folder, *words) + ".pyc"
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(file, "rb") as source, open(place, "wb") as made:
        data = source.read()
        made.write(data if file.endswith(".so") else compiled(data, file))


def compiled(source: bytes, file: str) -> bytes:
    """The content of a .pyc that is never checked against its source (PEP 552)."""
    name = os.path.relpath(file, sys.prefix)
    code = compile(source, f"/{name}", "exec", dont_inherit=True, optimize=2)
    head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")
    return head + importlib.util.source_hash(source) + marshal.dumps(code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
