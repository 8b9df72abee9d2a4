"""Where use cases come from: installed packages, the package `usecases`, a folder of yours.

    entry points    group `liquidnet.usecases`, each naming a `UseCase` class
    usecases.*      every module or package that has a `UseCase` class of its own
    a folder        given with --path, or in TESTBED_PATH
    the testbed     what its own commands run (`testbed observe`)

What cannot be imported is an error only for whoever asks for it by name.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from testbed.errors import UserError
from testbed.run.parameters import nearest
from testbed.run.usecase import UseCase

GROUP = "liquidnet.usecases"
PACKAGE = "usecases"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a use case's class may be found: a module's name, or a file or folder.

    `name` is what the module is called, and usually the use case too.
    """

    name: str
    module: str = ""
    path: str = ""
    attribute: str = ""

    def load(self) -> list[type[UseCase[Any]]]:
        """The use cases defined there; raises whatever the import raises."""
        module = (
            _import_path(Path(self.path)) if self.path else importlib.import_module(self.module)
        )
        if self.attribute:
            return [getattr(module, self.attribute)]
        return list(_classes(module))


_OWN = Source(name="observe", module="testbed.observe.usecase", attribute="Observe")


def sources(folders: tuple[str, ...] = ()) -> list[Source]:
    """Every place where a use case may be; a user's own folders first."""
    own = (*folders, *filter(None, os.environ.get("TESTBED_PATH", "").split(os.pathsep)))
    found = [source for folder in own for source in _in_folder(Path(folder))]
    for point in entry_points(group=GROUP):
        found.append(Source(name=point.name, module=point.module, attribute=point.attr or ""))
    package = importlib.import_module(PACKAGE)
    for item in pkgutil.iter_modules(package.__path__):
        found.append(Source(name=item.name, module=f"{PACKAGE}.{item.name}"))
    return [*found, _OWN]


def find(name: str, folders: tuple[str, ...] = ()) -> UseCase[Any]:
    """The use case called `name` (hyphens and underscores are the same).

    Raises `UserError` with the nearest names for an unknown one, or saying why it cannot be
    imported.
    """
    wanted = name.replace("-", "_")
    places = sources(folders)
    # the module is usually named like the use case: look there first, import no other
    places.sort(key=lambda source: source.name.replace("-", "_") != wanted)
    known: dict[str, None] = {}
    broken: dict[str, Exception] = {}
    for place in places:
        try:
            classes = place.load()
        except Exception as error:
            broken[place.name.replace("-", "_")] = error
            continue
        for each in classes:
            if each.name == wanted:
                return each()
            known[each.name] = None
    if wanted in broken:
        cause = broken[wanted]
        raise UserError(
            f"use case {name} cannot be imported: {type(cause).__name__}: {cause}"
        ) from cause
    raise UserError(f"there is no use case {name!r}", remedy=nearest(wanted, known))


def all_use_cases(
    folders: tuple[str, ...] = (),
) -> tuple[list[UseCase[Any]], list[tuple[str, Exception]]]:
    """Every use case to be listed, by name, and what could not be imported with the reason."""
    found: dict[str, UseCase[Any]] = {}
    broken = []
    for place in sources(folders):
        try:
            for each in place.load():
                found.setdefault(each.name, each())
        except Exception as error:
            broken.append((place.name, error))
    listed = (each for each in found.values() if each.listed)
    return sorted(listed, key=lambda each: each.name), broken


def _in_folder(folder: Path) -> Iterator[Source]:
    if folder.is_file():
        yield Source(name=folder.stem, path=str(folder.resolve()))
        return
    if not folder.is_dir():
        raise UserError(f"--path {folder}: no such folder", remedy="give a folder of use cases")
    for item in sorted(folder.iterdir()):
        if item.suffix == ".py" and not item.name.startswith("_"):
            yield Source(name=item.stem, path=str(item.resolve()))
        elif (item / "__init__.py").is_file():
            yield Source(name=item.name, path=str(item.resolve()))


def _import_path(path: Path) -> ModuleType:
    """Import a file or a package folder under its own name (its folder goes on sys.path)."""
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    name = path.stem if path.suffix == ".py" else path.name
    loaded = sys.modules.get(name)
    file = path if path.suffix == ".py" else path / "__init__.py"
    if loaded is not None:
        if getattr(loaded, "__file__", None) == str(file):
            return loaded
        raise UserError(
            f"{path} is called like the module {name}, which is in use", remedy="rename it"
        )
    return importlib.import_module(name)


def _classes(module: ModuleType) -> Iterator[type[UseCase[Any]]]:
    for _name, each in inspect.getmembers(module, inspect.isclass):
        own = each.__module__ == module.__name__ or each.__module__.startswith(
            f"{module.__name__}."
        )
        if own and issubclass(each, UseCase) and not inspect.isabstract(each):
            yield each
