"""Throughput stacked by wide-area path over time, with marks of what was done meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from usecases.clickos_migration.paths import DIRECT, OTHER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from testbed.report.results import Results

COLOURS = {DIRECT: "#0072B2", OTHER: "#E69F00"}
_LABELS = {DIRECT: "direct path", OTHER: "path over operator B"}


def draw_paths_over_time(
    canvas: Canvas, results: Results, variant: str, sources: Mapping[str, str]
) -> None:
    """Draw the first trial of `variant`; `sources` are whose samples, and what to call them."""
    from matplotlib.patches import Patch

    from testbed.report import figures

    axes = canvas.subplots()
    trials = results.trials
    first = trials[trials.variant == variant].iloc[0]
    stretches = [_stack(axes, results, variant, source, first) for source in sources]
    axes.set_xlim(0, stretches[-1][1])
    axes.set_ylim(0, max(top for *_times, top in stretches) * 1.18)
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # hides the marks' lines
    for (start, end, _top), text in zip(stretches, sources.values(), strict=True):
        if text:
            axes.text((start + end) / 2, 0.985, text, size=7, ha="center", va="top",
                      transform=axes.get_xaxis_transform(), bbox=behind)  # fmt: skip
    axes.set_xlabel("Time (s)")
    axes.set_ylabel("Throughput, both ways (Mb/s)")
    patches = [Patch(facecolor=COLOURS[path], label=_LABELS[path]) for path in COLOURS]
    canvas.legend(handles=patches, loc="outside upper center", ncols=len(patches))
    trial: Any = _Marks(results, first)
    figures.marks(axes, trial, variant)


class _Marks:
    """The marks of one trial: others act at other moments."""

    def __init__(self, results: Results, trial: Any) -> None:
        self._results, self._trial = results, trial

    def marks(self, *, variant: str | None = None) -> Any:
        """As of `Results`."""
        return _own(self._results.marks(variant=variant), self._trial)


def _own(frame: Any, trial: Any) -> Any:
    return frame[(frame["bundle"] == trial["bundle"]) & (frame["repeat"] == trial["repeat"])]


def _stack(
    axes: Axes, results: Results, variant: str, source: str, trial: Any
) -> tuple[float, float, float]:
    """Draw what one source recorded; from when to when, and the highest sum (Mb/s)."""
    layers = []
    for path in COLOURS:
        frame = results.samples("throughput", variant=variant, source=f"{source}.{path}")
        layers.append(_own(frame, trial))
    times = layers[0].time_s.to_numpy()
    rates = [each.value.to_numpy() / 1e6 for each in layers]
    axes.stackplot(times, *rates, colors=list(COLOURS.values()), linewidth=0)
    return float(times[0]), float(times[-1]), float((rates[0] + rates[1]).max())
