"""Where in the user's file was this written?  Call sites of topologies, for messages.

`Topo.addNode` and `Topo.addLink` (and with them `addHost` and `addSwitch`) remember the line
that called them, beside the topology; what they do and return stays Mininet's.  Frames of
Mininet and of this package are passed over, so that the line is one of the user's own.

That a node was added twice, which Mininet overwrites in silence, is noticed here too.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import mininet
from mininet.topo import Topo

from testbed.errors import TopologyError, UserError

_LIBRARIES = tuple(
    f"{Path(path).parent}{os.sep}" for path in (mininet.__file__, Path(__file__).parent)
)
_EXAMPLES = f"{os.sep}mininet{os.sep}examples{os.sep}"
_ATTRIBUTE = "_written_at"


class Place(NamedTuple):
    """A line of a file; `str()` is "net.py:12", relative where that is shorter."""

    file: str
    line: int

    def __str__(self) -> str:
        near = os.path.relpath(self.file)
        return f"{self.file if near.startswith(os.pardir) else near}:{self.line}"


def caller() -> Place | None:
    """The innermost line being executed that is neither Mininet's nor this package's."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not _of_a_library(file):
            return Place(file, frame.f_lineno)
        frame = frame.f_back  # type: ignore[assignment]
    return None


@functools.cache
def _of_a_library(file: str) -> bool:
    return file.startswith("<") or (file.startswith(_LIBRARIES) and _EXAMPLES not in file)


class Written:
    """Who wrote what of one topology: nodes and links by where, and what was written twice."""

    def __init__(self) -> None:
        self.nodes: dict[str, Place | None] = {}
        self.links: dict[tuple[str, str, Any], Place | None] = {}
        self.twice: list[tuple[str, Place | None, Place | None]] = []

    @classmethod
    def of(cls, topo: Topo) -> Written | None:
        """What is known of `topo`; None when it was built before anybody watched."""
        known: Written | None = topo.__dict__.get(_ATTRIBUTE)
        return known

    def node(self, name: str) -> None:
        """Node `name` is being added."""
        place = caller()
        if name in self.nodes:
            self.twice.append((name, self.nodes[name], place))
        self.nodes[name] = place

    def link(self, node1: str, node2: str, key: Any) -> None:
        """A link was added and got `key`."""
        self.links[node1, node2, key] = caller()


def _watched(topo: Topo) -> Written:
    known: Written | None = topo.__dict__.get(_ATTRIBUTE)
    if known is None:
        known = topo.__dict__[_ATTRIBUTE] = Written()
        known.nodes.update(dict.fromkeys(topo.g.nodes()))
    return known


def _watch_nodes(original: Any) -> Any:
    @functools.wraps(original)
    def addNode(self: Topo, name: str, **opts: Any) -> Any:
        _watched(self).node(name)
        return original(self, name, **opts)

    return addNode


def _watch_links(original: Any) -> Any:
    @functools.wraps(original)
    def addLink(self: Topo, node1: str, node2: str, *args: Any, **opts: Any) -> Any:
        for name in (node1, node2):
            if name not in self.g.node:
                raise placed(unknown_node(name, self.g.node), caller())
        key = original(self, node1, node2, *args, **opts)
        _watched(self).link(node1, node2, key)
        return key

    return addLink


def unknown_node(
    name: object, known: Iterable[object], *, what: str = "a link to"
) -> TopologyError:
    """The error for a link to (or what else names) a node that was never added."""
    near = get_close_matches(str(name), [str(each) for each in known], 1)
    return TopologyError(
        f"{what} {name!r}, and there is no such node",
        remedy=f"do you mean {near[0]!r}?" if near else "add that node",
    )


def prefix(place: Place | None) -> str:
    """ "net.py:12: " for the front of a message; empty where the line is not known."""
    return f"{place}: " if place else ""


class at:  # noqa: N801 (read as a statement: `with at(place):`)
    """Put the line in front of a user's mistake that is found inside (unless it has one)."""

    def __init__(self, place: Place | Callable[[], Place | None] | None) -> None:
        self._place = place

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, _type: object, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if isinstance(error, UserError) and not hasattr(error, "place"):
            place = self._place() if callable(self._place) else self._place
            raise placed(error, place) from error.__cause__


def placed(error: UserError, place: Place | None) -> UserError:
    """The same error with the line in front."""
    found = type(error)(prefix(place) + error.message, remedy=error.remedy)
    found.place = place  # type: ignore[attr-defined]
    return found


def watch() -> None:
    """Watch every topology built from now on (once a process)."""
    if not hasattr(Topo.addNode, "__wrapped__"):
        Topo.addNode = _watch_nodes(Topo.addNode)
        Topo.addLink = _watch_links(Topo.addLink)
