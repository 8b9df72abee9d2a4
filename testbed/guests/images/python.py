"""The part of Python's standard library that a recipe asks for, compiled, without sources.

What its modules import besides is found by importing them with the package's own interpreter,
which also compiles them: by `compile_modules.py`, which it runs.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from testbed.errors import FeatureError

_PROGRAM = Path(__file__).with_name("compile_modules.py")
_LIBRARY = "usr/lib/python3.11"


def modules(
    interpreter: Sequence[str], trees: Sequence[Path], names: Sequence[str]
) -> Iterator[tuple[str, Path]]:
    """(path in the image, file) of all files for `import` of the modules called `names`.

    `interpreter` are the words that start it.  The files exist until the next is asked for.
    """
    with tempfile.TemporaryDirectory() as work:
        home, made = Path(work, "home"), Path(work, "made")
        for tree in trees:
            if (tree / _LIBRARY).is_dir():  # whose links may lead to another package
                shutil.copytree(
                    tree / _LIBRARY, home / "lib/python3.11", symlinks=True, dirs_exist_ok=True
                )
        done = subprocess.run(
            [*interpreter, "-BsS", str(_PROGRAM), str(made), *names],
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONHOME": str(home), "PYTHONHASHSEED": "0"},
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise FeatureError(f"the image's Python: {last}", remedy="change the recipe's modules")
        for file in sorted(path for path in made.rglob("*") if path.is_file()):
            yield f"lib/python3.11/{file.relative_to(made)}", file
