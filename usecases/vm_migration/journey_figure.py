"""The journey's figure: one trial of live migration with Multipath TCP, all its moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testbed.run import MissingData
from usecases.vm_migration.journey import LEGS, MIGRATE_MPTCP
from usecases.vm_migration.viewer_figure import PHASES

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from testbed.report.results import Results

_WIFI, _LTE, _PEER = "#0072B2", "#CC79A7", "#666666"
_THROUGHPUT_S, _PICTURES_S = 1.0, 0.5  # what is averaged over


class _Trial:
    """The records of the first trial."""

    def __init__(self, results: Results) -> None:
        self._results = results
        trials = results.trials[results.trials.variant == MIGRATE_MPTCP]
        if trials.empty:
            raise MissingData(f"no complete trial of variant {MIGRATE_MPTCP}")
        self._first = trials.iloc[0]

    def _own(self, frame: pandas.DataFrame) -> pandas.DataFrame:
        first = self._first
        return frame[(frame.bundle == first.bundle) & (frame.repeat == first["repeat"])]

    def samples(self, metric: str, source: str) -> pandas.DataFrame:
        return self._own(self._results.samples(metric, variant=MIGRATE_MPTCP, source=source))

    def moves(self) -> pandas.DataFrame:
        return self._own(self._results.events("move", variant=MIGRATE_MPTCP))


def draw_journey(results: Results, canvas: Canvas) -> None:
    """Throughput by path, memory's throughput, buffer and decoded pictures, moves shaded."""
    trial = _Trial(results)
    every = canvas.subplots(4, 1, sharex=True, height_ratios=(4, 2.4, 2.4, 2.4))
    paths, peer, buffer, pictures = every
    _draw_paths(paths, trial)
    memory = trial.samples("throughput", "peer")
    peer.fill_between(memory.time_s, memory.value / 1e6, step="pre", color=_PEER, linewidth=0)
    peer.set_ylabel("Memory\n(Mb/s)")
    held = trial.samples("buffer", "viewer")
    buffer.plot(held.time_s, held.value, drawstyle="steps-post", color="#009E73")
    buffer.set_ylabel("Buffer (s)")
    _draw_pictures(pictures, trial)
    for axes in every:
        axes.set_ylim(bottom=0)
        _shade(axes, trial)
    _name_moves(paths, trial)
    every[-1].set_xlabel("Time (s)")
    every[-1].set_xlim(float(held.time_s.min()), float(held.time_s.max()))
    _legend(canvas)


def _draw_paths(axes: Axes, trial: _Trial) -> None:
    layers = [
        _binned(trial.samples("throughput", link), _THROUGHPUT_S).mean() / 1e6
        for link in ("lte", "wifi")
    ]
    count = min(map(len, layers))
    axes.stackplot(
        layers[0].index[:count] * _THROUGHPUT_S, *(layer.to_numpy()[:count] for layer in layers),
        step="post", colors=(_LTE, _WIFI), linewidth=0,
    )  # fmt: skip
    axes.set_ylabel("Video, by path\n(Mb/s)")


def _draw_pictures(axes: Axes, trial: _Trial) -> None:
    frames = _binned(trial.samples("frames", "viewer"), _PICTURES_S).last()
    axes.plot(frames.index * _PICTURES_S, frames.diff().rolling(2).mean() / _PICTURES_S,
              color="#D55E00")  # fmt: skip
    axes.set_ylabel("Pictures\na second")


def _binned(frame: pandas.DataFrame, bin_s: float) -> Any:
    """Values grouped by stretches of time, which the groups' keys count."""
    return frame.value.groupby((frame.time_s // bin_s).astype(int))


def _shade(axes: Axes, trial: _Trial) -> None:
    for move in trial.moves().itertuples():
        for name, begin, end in move.phases:
            axes.axvspan(begin, end, color=PHASES[name][0], linewidth=0, zorder=0,
                         alpha=0.25 if name == "copy" else 0.8)  # fmt: skip


def _name_moves(axes: Axes, trial: _Trial) -> None:
    """Say above the axes which move it is, from where its shade begins."""
    across = axes.get_xaxis_transform()
    for move in trial.moves().itertuples():
        leg = next(leg for leg in LEGS if leg.name == move.leg)
        axes.text(move.began, 1.04, f"{leg.source} to {leg.target}:\n{leg.title}", size=6.5,
                  va="bottom", ha="left", transform=across)  # fmt: skip


def _legend(canvas: Canvas) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=_WIFI, label="video over WiFi"),
        Patch(facecolor=_LTE, label="video over LTE"),
        *(
            Patch(facecolor=PHASES[name][0], alpha=0.4 if name == "copy" else 0.8,
                  label=PHASES[name][1])
            for name in ("copy", "down", "network")
        ),
    ]  # fmt: skip
    canvas.legend(handles=handles, loc="outside upper center", ncols=5)
