"""A picture of a topology: nodes by kind, links with what they do to packets.

Positions come from stress majorisation: distances in the picture follow the number of hops
(Gansner, Koren, North: Graph Drawing by Stress Majorization, GD 2004).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mininet.topo import Topo

from testbed.errors import TopologyError
from testbed.network.node import Router

_KINDS: dict[str, dict[str, Any]] = {
    "host": {"marker": "o", "color": "#0072B2"},
    "router": {"marker": "D", "color": "#D55E00"},
    "switch": {"marker": "s", "color": "#009E73"},
}
_MOST = 1000  # positions take seconds then, and grow with the cube of the number
_LABELLED = ("bw", "delay", "jitter", "loss")
_BACKGROUND = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
_UNITS = {"bw": " Mb/s", "loss": " %"}


def kind_of(topo: Topo, name: str) -> str:
    """ "host", "router" or "switch"."""
    if topo.isSwitch(name):
        return "switch"
    cls = topo.nodeInfo(name).get("cls")
    return "router" if isinstance(cls, type) and issubclass(cls, Router) else "host"


def link_label(info: dict[str, Any]) -> str:
    """What a link does, for people: "20 Mb/s, 10ms"."""
    sides = [{**info, **(info.get(key) or {})} for key in ("params1", "params2")]
    texts = [
        ", ".join(f"{side[key]}{_UNITS.get(key, '')}" for key in _LABELLED if side.get(key))
        for side in sides
    ]
    return texts[0] if texts[0] == texts[1] else " | ".join(text or "-" for text in texts)


def positions(names: list[str], edges: list[tuple[str, str]]) -> dict[str, tuple[float, float]]:
    """Where to put each node, in hops; the same for the same topology."""
    number = {name: i for i, name in enumerate(names)}
    count = len(names)
    if count == 1:
        return {names[0]: (0.0, 0.0)}
    hops = _hops(count, [(number[a], number[b]) for a, b in edges])
    weights = np.where(np.eye(count, dtype=bool), 0.0, 1.0 / np.maximum(hops, 1) ** 2)
    places = np.random.default_rng(1).normal(size=(count, 2)) * np.sqrt(count)
    laplacian = np.diag(weights.sum(axis=1)) - weights
    solve = np.linalg.pinv(laplacian)
    for _step in range(200):
        apart = places[:, None] - places[None]
        distance = np.maximum(np.linalg.norm(apart, axis=2), 1e-9)
        pull = (weights * hops / distance)[:, :, None] * apart
        places = solve @ pull.sum(axis=1)
    places = _lay_flat(places)
    return {name: (float(x), float(y)) for name, (x, y) in zip(names, places, strict=True)}


def _hops(count: int, edges: list[tuple[int, int]]) -> np.ndarray[Any, Any]:
    """Hops between all pairs (a component that cannot be reached is put at the number of nodes)."""
    adjacent: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        adjacent[a].append(b)
        adjacent[b].append(a)
    hops = np.full((count, count), float(count))
    for start in range(count):
        reached, frontier, distance = {start}, [start], 0
        while frontier:
            hops[start, frontier] = distance
            frontier = [n for n in {m for f in frontier for m in adjacent[f]} if n not in reached]
            reached.update(frontier)
            distance += 1
    return hops


def _lay_flat(places: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Turn the picture so that it is widest from left to right."""
    places = places - places.mean(axis=0)
    _values, axes = np.linalg.eigh(places.T @ places)
    return np.asarray(places @ axes[:, ::-1])


def draw(topo: Topo, path: Path, *, title: str = "") -> None:
    """Write the picture; the ending of `path` (.svg, .png, .pdf) says in which format."""
    from matplotlib.figure import Figure

    names = list(topo.nodes())
    if len(names) > _MOST:
        raise TopologyError(
            f"{len(names)} nodes are more than a picture can show (at most {_MOST})",
            remedy="leave --draw out, or draw a smaller one of the kind (--arg)",
        )
    links = topo.links(sort=True, withInfo=True)
    places = positions(names, [(a, b) for a, b, _info in links])
    spread = np.array(list(places.values()))
    width, height = np.clip(np.ptp(spread, axis=0) * 1.15 + 1.2, (4, 2.2), (16, 10))
    figure = Figure(figsize=(float(width), float(height)), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.margins(0.12)
    for a, b, info in links:
        (x1, y1), (x2, y2) = places[a], places[b]
        axes.plot((x1, x2), (y1, y2), color="#888888", linewidth=1.2, zorder=1)
        if label := link_label(info):
            middle = ((x1 + x2) / 2, (y1 + y2) / 2)
            axes.annotate(label, middle, fontsize=7, ha="center", va="center", bbox=_BACKGROUND)
    for kind, look in _KINDS.items():
        own = [places[name] for name in names if kind_of(topo, name) == kind]
        if own:
            xs, ys = zip(*own, strict=True)
            axes.scatter(xs, ys, s=110, zorder=2, label=kind, **look)
    for name, place in places.items():
        axes.annotate(
            name,
            place,
            xytext=(0, -14),
            textcoords="offset points",
            fontsize=8,
            ha="center",
            bbox=_BACKGROUND,
        )
    if title:
        axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7, frameon=False, loc="best", markerscale=0.6)
    figure.savefig(path, dpi=200)
