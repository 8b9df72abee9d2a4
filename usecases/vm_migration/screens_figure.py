"""The screens' figure: the machine's display before and after the move, to one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testbed.run import MissingData
from usecases.vm_migration.claims import first
from usecases.vm_migration.journey import MIGRATE_MPTCP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from testbed.report.results import Results

_BEZEL = 0.035  # of the larger display's width
_GAP = 0.1


def draw_screens(results: Results, canvas: Canvas) -> None:
    """Both screenshots in frames of their devices, pixels of equal size."""
    from matplotlib import image

    leg = first(results, MIGRATE_MPTCP)
    shown = results.events("display", variant=MIGRATE_MPTCP)
    shown = shown[(shown.leg == leg.name) & (shown.bundle == 0)]
    shots = []
    for when, device in (("before", leg.source), ("after", leg.target)):
        event = shown[shown.when == when].iloc[0]
        path = results.bundles[0].path / event.picture
        if not path.is_file():
            raise MissingData(f"the bundle has no {event.picture}")
        shots.append((image.imread(path), device, event))
    axes = canvas.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    widest = max(pixels.shape[1] for pixels, *_rest in shots)
    tallest = max(pixels.shape[0] for pixels, *_rest in shots)
    left, bezel = 0.0, _BEZEL * widest
    for pixels, device, event in shots:
        _screen(axes, pixels, left, bezel, f"{device}: {event['mode']}")
        left += pixels.shape[1] + 2 * bezel + _GAP * widest
    axes.set_xlim(-2 * bezel, left - _GAP * widest)
    axes.set_ylim(-5 * bezel, tallest + 2 * bezel)


def _screen(axes: Axes, pixels: Any, left: float, bezel: float, title: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    height, width = pixels.shape[:2]
    frame = FancyBboxPatch(
        (left - bezel * 0.4, -bezel * 0.4), width + bezel * 0.8, height + bezel * 0.8,
        boxstyle=f"round,pad={bezel * 0.6},rounding_size={bezel}", facecolor="#333333",
        linewidth=0, zorder=0,
    )  # fmt: skip
    axes.add_patch(frame)
    axes.imshow(pixels, extent=(left, left + width, 0, height), interpolation="nearest", zorder=1)
    axes.text(left + width / 2, -2.2 * bezel, title, size=7, ha="center", va="top")
