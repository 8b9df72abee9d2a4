"""The viewer's figure: where in the programme the picture is, and what is buffered, by variant.

One trial of each variant, around the move that all make.  Time and position count from the moment
that move was ordered.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from testbed.run import MissingData
from usecases.vm_migration.claims import first

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from testbed.report.results import Results

# Okabe and Ito's, none of them a variant's line; what a machine does while it moves
PHASES = {
    "copy": ("#56B4E9", "memory travels, machine runs"),
    "carry": ("#E8A07C", "memory travels, machine stands still"),
    "down": ("#A33D00", "machine stands still"),
    "network": ("#E69F00", "new address"),
    "boot": ("#999999", "machine boots"),
    "player": ("#F0E442", "player starts"),
}
_LEAD_S = 4.0
_SILENCE_S = 1.0


class Move:
    """The first trial of a variant around one of its moves; times count from the order."""

    def __init__(self, results: Results, variant: str, leg: str) -> None:
        self._results, self.variant = results, variant
        moves = results.events("move", variant=variant)
        moves = moves[moves.leg == leg]
        if moves.empty:
            raise MissingData(f"no move {leg} of variant {variant}")
        self.event = moves.iloc[0]
        self.began = float(self.event.began)

    @property
    def end(self) -> float:
        """How long after the order it is watched (s)."""
        return float(self.event.watched) - self.began

    def samples(self, metric: str, source: str = "viewer") -> tuple[list[float], list[float]]:
        """Times and values of a metric of this trial, from a little before the order on."""
        found = self._results.samples(metric, variant=self.variant, source=source)
        found = found[(found.bundle == self.event.bundle) & (found.repeat == self.event["repeat"])]
        times = found.time_s - self.began
        near = (times >= -_LEAD_S) & (times <= self.end)
        return list(times[near]), list(found.value[near])

    def phases(self) -> list[tuple[str, float, float]]:
        """(name, begin, end) of each phase of the move."""
        return [(n, a - self.began, b - self.began) for n, a, b in self.event.phases]


def draw_viewer(results: Results, canvas: Canvas) -> None:
    """Position, buffer and phases against time."""
    moves = [Move(results, variant, first(results, variant).name) for variant in results.variants]
    upper, middle, strip = canvas.subplots(3, 1, sharex=True, height_ratios=(5, 3, 2))
    for move in moves:
        look = results.look(move.variant)
        times, positions = move.samples("position")
        origin = _at(times, positions, 0.0)
        style: dict[str, Any] = {
            "color": look.colour, "linestyle": look.line, "drawstyle": "steps-post"
        }  # fmt: skip
        upper.plot(times, [p - origin for p in positions], label=move.variant, **style)
        middle.plot(*_broken(*move.samples("buffer")), **style)
    end = max(move.end for move in moves)
    upper.plot([-_LEAD_S, end], [-_LEAD_S, end], color="#888888", linewidth=0.6, zorder=0,
               linestyle=(0, (2, 2)))  # fmt: skip
    upper.text(0.85 * end, 0.9 * end, "without a move", size=6.5, ha="right", va="bottom",
               color="#666666")  # fmt: skip
    upper.set_ylim(-_LEAD_S, 1.1 * end)
    upper.set_ylabel("Position in the\nprogramme (s)")
    middle.set_ylabel("Buffer (s)")
    middle.set_ylim(bottom=0)
    _draw_strip(strip, moves)
    strip.set_xlabel("Time since the move was ordered (s)")
    strip.set_xlim(-_LEAD_S, end)
    _legend(canvas, upper)


def _at(times: list[float], values: list[float], moment: float) -> float:
    earlier = [value for time, value in zip(times, values, strict=True) if time <= moment]
    if not earlier:
        raise MissingData("nothing was watched before the move")
    return earlier[-1]


def _broken(times: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """The same with a break wherever nothing was reported for a second."""
    found: tuple[list[float], list[float]] = ([], [])
    for place, (time, value) in enumerate(zip(times, values, strict=True)):
        if place and time - times[place - 1] > _SILENCE_S:
            found[0].append(times[place - 1])
            found[1].append(math.nan)
        found[0].append(time)
        found[1].append(value)
    return found


def _draw_strip(axes: Axes, moves: list[Move]) -> None:
    """What each variant does when, one row each."""
    for row, move in enumerate(moves):
        for name, begin, end in move.phases():
            axes.barh(row, end - begin, left=begin, height=0.62, color=PHASES[name][0],
                      linewidth=0)  # fmt: skip
    axes.set_yticks(range(len(moves)), [move.variant for move in moves])
    axes.set_ylim(len(moves) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)


def _legend(canvas: Canvas, axes: Axes) -> None:
    from matplotlib.patches import Patch

    lines, names = axes.get_legend_handles_labels()
    patches = [Patch(facecolor=colour, label=label) for colour, label in PHASES.values()]
    every = [*lines, *patches]
    canvas.legend(every, [*names, *(label for _colour, label in PHASES.values())],
                  loc="outside upper center", ncols=5)  # fmt: skip
