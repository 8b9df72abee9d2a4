"""Figure 3.1 redrawn: the two operators, and what each link carried before and after.

Where things lie is said here; what links carried comes from the records (`paths`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from usecases.clickos_migration.paths import DIRECT, LINKS, OTHER
from usecases.clickos_migration.stacked import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PLACES = {
    "clients": (0.0, 2.0),
    "edge": (1.0, 2.0),
    "m1": (2.3, 2.0),
    "a1": (3.5, 1.55),
    "a2": (3.5, 2.45),
    "transit": (4.9, 2.0),
    "far": (7.3, 2.0),
    "server": (8.4, 2.0),
    "dc1": (2.3, 0.55),
    "b1": (4.4, 0.55),
    "b2": (6.1, 0.55),
    "dc2": (4.4, -0.5),
    "m2": (5.45, -0.5),
}
_TEXTS = {"m1": "M1", "m2": "M2", "dc1": "DC 1", "dc2": "DC 2", "transit": "peer"}
_BOXES = {"m1": "#E69F00", "m2": "#E69F00"}
_DOMAINS = (
    ("ISP A", (0.62, 0.15), (3.3, 2.75), (0.75, 2.78), "#0072B2"),
    ("ISP B", (3.95, -0.95), (2.6, 1.85), (6.42, 0.15), "#009E73"),
)
_PLAIN = (("clients", "edge"), ("far", "server"), ("m1", "dc1"))
_TOLD = {DIRECT: (0.0, 0.22, "center", "bottom"), OTHER: (0.25, -0.1, "left", "center")}
_BY_B = {OTHER, "peering", "b1-dc2", "dc2-m2", "b1-b2"}
_WIDEST_PT = 9.0
_LEAST_SHARE = 0.004  # of the busiest link: routing's and neighbours' own packets


class Load(NamedTuple):
    """What a link carried: bytes, and bits a second on average."""

    bytes: float
    rate_bps: float


def draw_map(axes: Axes, loads: Mapping[str, Load], *, busiest_bps: float) -> None:
    """Draw the network; widths of links are their loads', of which `busiest_bps` is the widest."""
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-0.45, 8.85)
    axes.set_ylim(-1.1, 3.1)
    for domain in _DOMAINS:
        _domain(axes, *domain)
    for one, other in _PLAIN:
        _line(axes, one, other, 0.7, "#888888")
    _interconnect(axes)
    for link, (one, other) in LINKS.items():
        share = loads[link].rate_bps / busiest_bps if busiest_bps else 0.0
        if share > _LEAST_SHARE:
            colour = COLOURS[OTHER if link in _BY_B else DIRECT]
            _line(axes, one, other, max(0.9, _WIDEST_PT * share), colour)
        else:
            _line(axes, one, other, 0.7, "#888888")
    for link, shift in _TOLD.items():
        _tell(axes, link, loads[link], shift)
    for node, place in _PLACES.items():
        _node(axes, node, place)


def _domain(
    axes: Axes,
    name: str,
    corner: tuple[float, float],
    size: tuple[float, float],
    label: tuple[float, float],
    colour: str,
) -> None:
    from matplotlib.patches import FancyBboxPatch

    patch = FancyBboxPatch(corner, *size, boxstyle="round,pad=0,rounding_size=0.3", zorder=0)
    patch.set(facecolor=colour, alpha=0.09, linewidth=0)
    axes.add_patch(patch)
    align = "left" if label[0] < corner[0] + size[0] / 2 else "right"
    axes.text(*label, name, color=colour, size=7, ha=align, va="top", weight="bold")


def _line(axes: Axes, one: str, other: str, width_pt: float, colour: str) -> None:
    (x1, y1), (x2, y2) = _PLACES[one], _PLACES[other]
    axes.plot([x1, x2], [y1, y2], color=colour, linewidth=width_pt, solid_capstyle="round",
              zorder=1)  # fmt: skip


def _interconnect(axes: Axes) -> None:
    """The link between the data centres, which clients' traffic does not use."""
    (x1, y1), (x2, y2) = _PLACES["dc1"], _PLACES["dc2"]
    axes.plot([x1, x1, x2], [y1, y2, y2], color="#888888", linewidth=0.7, zorder=0.5,
              linestyle=(0, (3, 2)))  # fmt: skip


def _tell(axes: Axes, link: str, load: Load, place: tuple[float, float, str, str]) -> None:
    shift_x, shift_y, across, along = place
    (x1, y1), (x2, y2) = (_PLACES[node] for node in LINKS[link])
    text = f"{load.bytes / 1e6:.1f} MB\n{load.rate_bps / 1e6:.1f} Mb/s"
    weight = "bold" if load.bytes > 1e5 else "normal"
    axes.text((x1 + x2) / 2 + shift_x, (y1 + y2) / 2 + shift_y, text, size=6.5, ha=across,
              va=along, weight=weight, zorder=4)  # fmt: skip


def _node(axes: Axes, node: str, place: tuple[float, float]) -> None:
    text, box = _TEXTS.get(node, node), _BOXES.get(node, "white")
    axes.text(
        *place, text, size=6.5, ha="center", va="center", zorder=3,
        bbox={"boxstyle": "round,pad=0.28", "facecolor": box, "edgecolor": "#1a1a1a",
              "linewidth": 0.6},
    )  # fmt: skip
