"""Topologies out of a user's file: Mininet's `topos` dictionary, or the `Topo` classes in it."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from mininet.topo import LinearTopo, MinimalTopo, SingleSwitchReversedTopo, SingleSwitchTopo, Topo
from mininet.topolib import TorusTopo, TreeTopo
from mininet.util import splitArgs

from testbed.errors import ParameterError, TestbedError, TopologyError, UserError
from testbed.network.where import Place, placed

_MODULE = "testbed_user_topology"


_OWN: dict[str, Callable[..., Topo]] = {
    "minimal": MinimalTopo,
    "linear": LinearTopo,
    "reversed": SingleSwitchReversedTopo,
    "single": SingleSwitchTopo,
    "tree": TreeTopo,
    "torus": TorusTopo,
}
"""Topologies of Mininet's own, by the names its command `mn --topo` gives them."""


def is_own(path: Path) -> bool:
    """Is this no file but a topology of Mininet's own, as "linear,3"?"""
    return not path.exists() and str(path).partition(",")[0] in _OWN


def load(path: Path, name: str = "") -> Callable[..., Topo]:
    """The topology called `name` in a file (the only one, or the first of `topos`, without it).

    A path like "tree,2,3" names one of Mininet's own with its arguments.  Raises `TopologyError`
    where the file cannot be read, fails, or has no such topology.
    """
    if is_own(path):
        own, arguments, options = splitArgs(str(path))
        return functools.partial(_OWN[own], *arguments, **options)
    found = topologies(_execute(path), path)
    if not found:
        raise TopologyError(
            f"{path} holds no topology",
            remedy="define a subclass of mininet.topo.Topo, or topos = {'name': factory}",
        )
    if not name:
        return next(iter(found.values()))
    if name not in found:
        raise TopologyError(
            f"{path} holds no topology {name!r}", remedy=f"choose of {', '.join(found)}"
        )
    return found[name]


def topologies(module: ModuleType, path: Path) -> dict[str, Callable[..., Topo]]:
    """Topologies of a loaded file by name: those in `topos` first, then its own classes."""
    found: dict[str, Callable[..., Topo]] = dict(getattr(module, "topos", {}))
    for name, thing in vars(module).items():
        own = isinstance(thing, type) and issubclass(thing, Topo) and thing.__module__ == _MODULE
        if own and thing not in found.values():
            found[name] = thing
    return found


def read(path: Path) -> str:
    """The text of a file; `TopologyError` where there is none."""
    if not path.is_file():
        raise TopologyError(f"there is no file {path}", remedy="give a Python file with a Topo")
    return path.read_text()


def _execute(path: Path) -> ModuleType:
    read(path)
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except TestbedError:
        raise
    except (Exception, SystemExit) as error:
        raise TopologyError(f"{path}{where(error, path)}: {_text(error)}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def build(factory: Callable[..., Topo], path: Path, arguments: dict[str, Any]) -> Topo:
    """Build a topology; what fails in the user's code is said with its line."""
    try:
        return factory(**arguments)
    except UserError as error:
        if hasattr(error, "place"):
            raise
        line = where(error, path).strip(":")
        raise placed(error, Place(str(path), int(line)) if line else None) from error
    except TestbedError:
        raise
    except Exception as error:
        raise TopologyError(f"{path}{where(error, path)}: {_text(error)}") from error


def arguments(pairs: Iterable[str]) -> dict[str, Any]:
    """A topology's arguments out of KEY=VALUE words; values are JSON, or else text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ParameterError(f"--arg {pair}", remedy="write it as KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def where(error: BaseException, path: Path) -> str:
    """Where in the user's file the error arose, as ":12"; empty where that is not known."""
    number = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == path.absolute() or (
            trace.tb_frame.f_code.co_filename == str(path)
        ):
            number = trace.tb_lineno
        trace = trace.tb_next
    return f":{number}" if number else ""
