"""The house style of figures: fit for a paper at column width, safe for colour-blind readers.

Sizes are those of a two-column paper (3.4 in, 7 in); text is 8 points, never below 6.  Colours
are Okabe and Ito's (jfly.uni-koeln.de/color), in an order that keeps neighbours apart also in
print without colour; each goes with a line style and a marker of its own.  A variant keeps its
look in every figure of its use case: it depends on its place in `UseCase.variants` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

WIDTHS_IN = {"column": 3.4, "wide": 7.0}
HEIGHTS_IN = {"column": 2.3, "wide": 2.6}
DPI = 200
INK, FAINT, WARNING = "#1a1a1a", "#d9d9d9", "#a33d00"

# what a look is made of: black comes late, yellow (too pale on white) never
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.2, 1, 1.2)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_RC: dict[str, Any] = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.2,
    "legend.handletextpad": 0.5,
    "legend.borderaxespad": 0.2,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}


class Look(NamedTuple):
    """How a variant is drawn."""

    colour: str
    line: str | tuple[int, tuple[float, ...]]
    marker: str


def look(place: int) -> Look:
    """The look of the variant at `place` (from 0) of its use case's variants."""
    return Look(
        _COLOURS[place % len(_COLOURS)],
        _LINES[place % len(_LINES)],
        _MARKERS[place % len(_MARKERS)],
    )


def tint(colour: str, strength: float = 0.8) -> str:
    """`colour` (#rrggbb) mixed with white: opaque, so that no grid shines through."""
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(255 + (part - 255) * strength):02x}" for part in parts)


@contextmanager
def house_style(salt: str) -> Iterator[None]:
    """Matplotlib's settings for one figure; equal data and `salt` give an equal SVG."""
    import matplotlib

    settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, **_RC, "svg.hashsalt": salt}
    settings.pop("backend")  # choosing one is not a matter of style
    with matplotlib.rc_context(settings):
        yield
