"""The setting, drawn from the running topology, with what a migration was measured to take.

Which nodes and links there are, what the links are specified to do and which addresses the
machine had comes from the records of the trial; where a node lies on paper is said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from testbed.run import MissingData
from usecases.vm_migration.claims import first
from usecases.vm_migration.journey import MIGRATE_MPTCP, PHONE, TABLET, Leg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from testbed.report.results import Results

_PLACES = {
    PHONE: (0.0, 2.0),
    TABLET: (0.0, 0.0),
    "ap": (2.3, 2.0),
    "enodeb": (2.3, 0.0),
    "isp1": (3.7, 2.0),
    "isp2": (3.7, 0.0),
    "core": (5.0, 1.0),
    "server": (6.4, 1.0),
}
_COLOURS = {PHONE: "#0072B2", TABLET: "#CC79A7"}  # the way from each device to the server
_MEMORY, _PLAIN, _MACHINE = "#D55E00", "#888888", "#E69F00"
_TITLES = {"ap": "access point", "enodeb": "eNodeB", "isp1": "ISP 1", "isp2": "ISP 2"}


def draw_setting(results: Results, canvas: Canvas) -> None:
    """Draw devices, links, the machine at both ends of its move, and what was measured."""
    leg = first(results, MIGRATE_MPTCP)
    setting = results.events("setting", variant=MIGRATE_MPTCP).iloc[0]
    unknown = {end for link in setting.links for end in link["ends"]} - set(_PLACES)
    if unknown:
        raise MissingData(f"no place for {', '.join(sorted(unknown))} on this figure")
    axes = canvas.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-2.05, 6.85)
    axes.set_ylim(-0.35, 2.55)
    for link in setting.links:
        _link(axes, link, _carried(results, leg, link["name"]))
    for node, place in _PLACES.items():
        _node(axes, node, place)
    _machine(axes, results, leg, setting.addresses)


def _carried(results: Results, leg: Leg, name: str) -> float | None:
    """Bytes that a link carried around the move; None where that was not counted."""
    if not name:
        return None
    return results.mean("carried", variant=MIGRATE_MPTCP, source=f"{leg.name}.{name}").mean


def _link(axes: Axes, link: Mapping[str, Any], carried: float | None) -> None:
    one, other = link["ends"]
    (x1, y1), (x2, y2) = _PLACES[one], _PLACES[other]
    memory = {one, other} == {PHONE, TABLET}
    colour = _MEMORY if memory else _colour(one, other)
    axes.plot([x1, x2], [y1, y2], color=colour, linewidth=2.6 if memory else 1.8, zorder=1,
              solid_capstyle="round")  # fmt: skip
    told = [link["spec"]] if link["spec"] else []
    if carried is not None:
        told.append(f"carried {carried / 1e6:.1f} MB")
    if not told:
        return
    if memory:
        axes.text(x1 + 0.12, (y1 + y2) / 2, "\n".join(told), size=6.5, va="center", ha="left")
    else:
        axes.text((x1 + x2) / 2 + 0.15, y1 + 0.1, "\n".join(told), size=6.5, va="bottom",
                  ha="center")  # fmt: skip


def _colour(one: str, other: str) -> str:
    """Of which device's way to the server a link is; the last one is of both."""
    for device, nodes in ((PHONE, {PHONE, "ap", "isp1"}), (TABLET, {TABLET, "enodeb", "isp2"})):
        if {one, other} & nodes:
            return _COLOURS[device]
    return _PLAIN


def _node(axes: Axes, node: str, place: tuple[float, float]) -> None:
    device = node in (PHONE, TABLET)
    axes.text(
        *place, _TITLES.get(node, node), size=7, ha="center", va="center", zorder=3,
        weight="bold" if device else "normal",
        bbox={"boxstyle": "round,pad=0.4" if device else "round,pad=0.28", "facecolor": "white",
              "edgecolor": _COLOURS.get(node, "#1a1a1a"), "linewidth": 1.4 if device else 0.6},
    )  # fmt: skip


def _machine(axes: Axes, results: Results, leg: Leg, addresses: Mapping[str, str]) -> None:
    """The machine before and after the move, and the arrow of the move between."""
    from testbed.report import style

    places = {device: (_PLACES[device][0] - 1.25, _PLACES[device][1]) for device in _COLOURS}
    for device, when in ((leg.source, "before"), (leg.target, "after")):
        x, y = places[device]
        source = f"{leg.name}.{device}"
        carried = results.mean("subflow", variant=MIGRATE_MPTCP, source=source).mean
        told = f"machine {when}\n{addresses[device]}\nsubflow {carried / 1e6:.1f} MB"
        axes.text(
            x, y, told, size=6, ha="center", va="center", zorder=3,
            bbox={"boxstyle": "round,pad=0.35", "edgecolor": "#1a1a1a", "linewidth": 0.6,
                  "facecolor": style.tint(_MACHINE, 0.3 if when == "before" else 0.9)},
        )  # fmt: skip
        axes.plot([x, _PLACES[device][0]], [y, y], color=_PLAIN, linewidth=0.8, zorder=0)
    _arrow(axes, results, leg, places)


def _arrow(
    axes: Axes, results: Results, leg: Leg, places: Mapping[str, tuple[float, float]]
) -> None:
    down, total, payload = (
        results.mean(metric, variant=MIGRATE_MPTCP, source=leg.name).mean
        for metric in ("downtime", "total", "payload")
    )
    (x, start), (_x, end) = places[leg.source], places[leg.target]
    shrink = 0.45 if start > end else -0.45
    axes.annotate(
        "", (x, end + shrink), (x, start - shrink),
        arrowprops={"arrowstyle": "-|>", "color": _MEMORY, "linewidth": 1.2},
    )  # fmt: skip
    axes.text(x + 0.1, (start + end) / 2,
              f"{payload / 1e6:.0f} MB\nin {total:.1f} s,\ndown {down * 1e3:.0f} ms",
              size=6.5, va="center", ha="left")  # fmt: skip
