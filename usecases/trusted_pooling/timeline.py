"""The timeline figure: one trial of the connection manager, path by path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from testbed.run import MissingData
from usecases.trusted_pooling.plan import DOWNLOAD, OUTAGE, PHASES, UPLOAD
from usecases.trusted_pooling.variants import TRUSTED

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from testbed.report.results import Results

_WIFI, _LTE, _SECRET = "#56B4E9", "#E69F00", "#D55E00"  # Okabe and Ito's, none of a variant's line
_TITLES = {UPLOAD: "live, up", DOWNLOAD: "live, down", OUTAGE: "LTE fails"}


class _Trial:
    """The records of one trial."""

    def __init__(self, results: Results) -> None:
        self._results = results
        first = results.trials[results.trials.variant == TRUSTED]
        if first.empty:
            raise MissingData(f"no complete trial of variant {TRUSTED}")
        self._key = tuple(first.iloc[0][["bundle", "repeat"]])

    def _own(self, frame: pandas.DataFrame) -> pandas.DataFrame:
        return frame[(frame.bundle == self._key[0]) & (frame.repeat == self._key[1])]

    def samples(self, metric: str, source: str | None = None) -> pandas.DataFrame:
        return self._own(self._results.samples(metric, variant=TRUSTED, source=source))

    def events(self, kind: str) -> pandas.DataFrame:
        return self._own(self._results.events(kind, variant=TRUSTED))

    def moment(self, kind: str) -> float:
        """When the only event of a kind was, in seconds."""
        return float(self.events(kind).time_s.iloc[0])

    def confined(self) -> Iterator[tuple[float, float]]:
        """(begin, end) of the times the live connection was kept on trusted paths."""
        begins, ends = self.events("sensitive-begins"), self.events("sensitive-ends")
        for phase in (UPLOAD, DOWNLOAD, OUTAGE):
            starts = list(begins[begins.phase == phase].time_s)
            stops = list(ends[ends.phase == phase].time_s)
            drains = list(self.samples(f"{phase}_switch_back").value)
            # a period that begins while the last one drains has one drain with it: the later
            drains = [0.0] * (len(stops) - len(drains)) + drains
            for start, stop, drain in zip(starts, stops, drains, strict=True):
                yield start, stop + drain

    def exchanges(self) -> Iterator[tuple[float, float]]:
        """(begin, end) of the exchanges of web and chat that were sensitive."""
        for event in self.events("sensitive-exchange").itertuples():
            yield event.time_s - event.took_s, event.time_s


def draw_timeline(results: Results, canvas: Canvas) -> None:
    """Throughput by interface, stacked, over a strip of what is sensitive."""
    from testbed.report import style

    trial = _Trial(results)
    upper, strip = canvas.subplots(2, 1, sharex=True, height_ratios=(12, 1))
    _draw_paths(upper, trial)
    for start, stop in trial.confined():
        upper.axvspan(start, stop, color=_SECRET, alpha=0.13, linewidth=0)
        strip.axvspan(start, stop, color=_SECRET, linewidth=0)
    for start, stop in trial.exchanges():
        strip.axvspan(start, stop, color=_SECRET, linewidth=0)
    dies, returns = trial.moment("trusted-path-fails"), trial.moment("trusted-path-returns")
    upper.axvspan(dies, returns, facecolor="none", edgecolor=style.INK, hatch="////", alpha=0.35,
                  linewidth=0)  # fmt: skip
    _draw_phases(upper, trial)
    strip.set_yticks([])
    strip.set_ylabel("sensitive", rotation=0, ha="right", va="center", size=7)
    strip.set_xlabel("Time (s)")
    strip.grid(visible=False)


def _draw_paths(axes: Axes, trial: _Trial) -> None:
    from matplotlib.patches import Patch

    from testbed.report import style

    lte, wifi = (trial.samples("throughput", source) for source in ("lte", "wifi"))
    count = min(len(lte), len(wifi))
    times = lte.time_s.to_numpy()[:count]
    layers = [each.value.to_numpy()[:count] / 1e6 for each in (lte, wifi)]
    axes.stackplot(times, *layers, step="pre", colors=(_LTE, _WIFI), linewidth=0)
    axes.set_ylabel("Throughput (Mb/s)")
    axes.set_xlim(0, float(times[-1]))
    handles: list[Any] = [
        Patch(facecolor=_WIFI, label="WiFi (open)"),
        Patch(facecolor=_LTE, label="LTE (trusted)"),
        Patch(facecolor=_SECRET, alpha=0.2, label="confined to LTE"),
        Patch(facecolor="none", edgecolor=style.INK, hatch="////", linewidth=0, alpha=0.5,
              label="LTE is dead"),
    ]  # fmt: skip
    canvas: Any = axes.get_figure()
    canvas.legend(handles=handles, loc="outside upper center", ncols=4)


def _draw_phases(axes: Axes, trial: _Trial) -> None:
    from testbed.report import style

    top = axes.get_ylim()[1] * 1.1
    axes.set_ylim(0, top)
    for phase in PHASES:
        start, stop = trial.moment(f"{phase}-begins"), trial.moment(f"{phase}-ends")
        axes.axvline(start, color=style.INK, linewidth=0.5, linestyle=(0, (1, 2)))
        axes.text((start + stop) / 2, top * 0.985, _TITLES.get(phase, phase), ha="center",
                  va="top", size=7)  # fmt: skip
