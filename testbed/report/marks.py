"""Marks: what happened to the network while a figure's curves were recorded.

Whatever changes a running network leaves an event with a short text, its `mark` ("wifi down").
Here they become thin vertical lines with small labels above the axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from testbed.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from testbed.report.results import Results

_SIZE_PT = 6.0
_ROW_PT = 7.5
_GAP_PT = 3.0
_MOST_ROWS = 6


class Mark(NamedTuple):
    """A moment (s), and what is written at it."""

    time_s: float
    text: str


def marks(axes: Axes, results: Results, variant: str | None = None, *, labels: bool = True) -> None:
    """Draw the marks of `variant` (or of all) into `axes`, whose time axis is in seconds.

    Call it after the curves are drawn: it keeps the axis' limits and leaves out what lies beyond
    them.  A change that every repeat makes is drawn once, at its mean time.  Labels that would
    collide go to rows of their own; where there are too many for that, the rest stay lines.
    With axes on top of each other give `labels=False` to all but the topmost.
    """
    low, high = axes.get_xlim()
    found = [mark for mark in moments(results, variant) if low <= mark.time_s <= high]
    for mark in found:
        axes.axvline(mark.time_s, color=style.INK, linewidth=0.5, alpha=0.55, zorder=1.5)
    if labels and found:
        _label(axes, found)
    axes.set_xlim(low, high)


def moments(results: Results, variant: str | None = None) -> list[Mark]:
    """The marks in order of time: the nth of one text in a trial is the nth in its repeats."""
    table = results.marks(variant=variant)
    if table.empty:
        return []
    trial = ["bundle", "variant", "repeat", "mark"]
    nth = table.groupby(trial).cumcount().rename("nth")
    means = table.groupby([table["mark"], nth]).time_s.mean()
    return sorted(Mark(float(when), text) for (text, _nth), when in means.items())


def _label(axes: Axes, found: list[Mark]) -> None:
    """Write the labels above the axes, each to the right of its line."""
    from matplotlib.transforms import blended_transform_factory

    canvas: Any = axes.get_figure()
    canvas.draw_without_rendering()  # lays the axes out, so that their width is known
    width_pt = axes.get_window_extent().width * 72 / canvas.dpi
    low, high = axes.get_xlim()
    lefts = [(mark.time_s - low) / (high - low) * width_pt for mark in found]
    widths = [text_width_pt(mark.text) for mark in found]
    across = blended_transform_factory(axes.transData, axes.transAxes)
    for mark, (left_pt, row) in zip(found, places(lefts, widths, width_pt), strict=True):
        if row >= _MOST_ROWS:
            continue
        shift_pt = left_pt - (mark.time_s - low) / (high - low) * width_pt
        axes.annotate(
            mark.text, (mark.time_s, 1.0), xycoords=across,
            xytext=(shift_pt + 1.0, 1.5 + row * _ROW_PT), textcoords="offset points",
            size=_SIZE_PT, color=style.INK, va="bottom", ha="left", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "relpos": (0, 0), "linewidth": 0.4, "alpha": 0.55,
                        "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip


def text_width_pt(text: str) -> float:
    """How wide a label is, in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    if not text.strip():
        return 0.0
    path = TextPath((0, 0), text, size=_SIZE_PT, prop=FontProperties(family="DejaVu Sans"))
    return float(path.get_extents().x1)


def places(lefts: list[float], widths: list[float], room: float) -> list[tuple[float, int]]:
    """Left edge and row (0 lowest) of each label, so that none touches another.

    Labels begin at their lines (`lefts`, ascending), pushed left where they would leave the
    `room`.  Placed from the right: a label lies above those that begin within it.
    """
    placed: list[tuple[float, int]] = []
    ends: list[tuple[float, float, int]] = []
    for wanted, width in zip(reversed(lefts), reversed(widths), strict=True):
        left = max(0.0, min(wanted, room - width))
        above = [row for start, end, row in ends if start < left + width + _GAP_PT and left < end]
        row = max(above, default=-1) + 1
        ends.append((left, left + width + _GAP_PT, row))
        placed.append((left, row))
    return placed[::-1]
