"""The figures of variant redirect, drawn from records alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testbed.run import Figure, MissingData
from usecases.clickos_migration.contenders import ABOUT, CONTENDERS, REDIRECT, VARIANT
from usecases.clickos_migration.map_figure import Load, draw_map
from usecases.clickos_migration.paths import LINKS
from usecases.clickos_migration.redirect_claims import per_connection, values
from usecases.clickos_migration.stacked import draw_paths_over_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from testbed.report.results import Results

_FEW = 10  # values of a contender: fewer are shown as dots
_SWEPT = "paths.rtt"


def draw_paths(results: Results, canvas: Canvas) -> None:
    """The network before and after the redirection."""
    times = {name: _seconds(results, name) for name in ("before", "after")}
    loads = {
        when: {link: _load(results, when, link, seconds) for link in LINKS}
        for when, seconds in times.items()
    }
    busiest = max(load.rate_bps for each in loads.values() for load in each.values())
    for axes, when in zip(canvas.subplots(1, 2), times, strict=True):
        draw_map(axes, loads[when], busiest_bps=busiest)
        axes.set_title(f"{times[when]:g} s {when} the redirection")


def _seconds(results: Results, when: str) -> float:
    return float(results.parameter(f"{VARIANT}.{when}"))


def _load(results: Results, when: str, link: str, seconds: float) -> Load:
    carried = float(values(results, f"carried_{when}", f"{REDIRECT}.{link}").mean())
    return Load(carried, carried * 8 / seconds)


def draw_throughput(results: Results, canvas: Canvas) -> None:
    """Throughput of the two wide-area paths, stacked, through one trial of all contenders."""
    draw_paths_over_time(canvas, results, VARIANT, ABOUT)


def draw_gaps(results: Results, canvas: Canvas) -> None:
    """Longest gaps around the operator's act: distributions, or dots where there are few."""
    axes = canvas.subplots()
    gaps = {name: per_connection(results, "gap_after", name) * 1e3 for name in CONTENDERS}
    if min(map(len, gaps.values())) < _FEW:
        _dots(axes, gaps)
    else:
        _distributions(axes, gaps)
    axes.set_xlabel("Longest gap at the receiver (ms)")
    axes.set_xlim(left=0)


def _dots(axes: Axes, gaps: dict[str, Any]) -> None:
    from testbed.report import style

    for place, (_contender, found) in enumerate(gaps.items()):
        look = style.look(place)
        axes.plot(found, [place] * len(found), linestyle="", marker=look.marker,
                  color=look.colour, markersize=4, alpha=0.75, markeredgewidth=0)  # fmt: skip
        median = float(found.median())
        axes.plot([median] * 2, [place - 0.3, place + 0.3], color=style.INK, linewidth=1.2)
        axes.annotate(f"{median:.0f}", (median, place - 0.32), xytext=(0, 1), ha="center", size=7,
                      textcoords="offset points")  # fmt: skip
    axes.set_yticks(range(len(gaps)), [ABOUT[name].replace(" ", "\n", 1) for name in gaps])
    axes.set_ylim(len(gaps) - 0.5, -0.65)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)


def _distributions(axes: Axes, gaps: dict[str, Any]) -> None:
    from testbed.report import figures, style

    for place, (contender, found) in enumerate(gaps.items()):
        look, ordered = style.look(place), sorted(found)
        shares = [(number + 1) / len(ordered) for number in range(len(ordered))]
        axes.step([ordered[0], *ordered], [0.0, *shares], where="post", color=look.colour,
                  linestyle=look.line, label=ABOUT[contender])  # fmt: skip
    axes.set_ylabel("Share of connections")
    axes.set_ylim(0, 1.02)
    figures.legend(axes)


def draw_sweep(results: Results, canvas: Canvas) -> None:
    """Join time, gaps and goodput against the round-trip time, from the bundles of a sweep."""
    from testbed.report import style

    where = results.parameter_of(_SWEPT)
    if len(set(where.values())) < 2:
        raise MissingData(f"needs bundles with several values of {_SWEPT} (testbed sweep)")
    left, right = canvas.subplots(1, 2)
    for place, (metric, label) in enumerate(
        (
            ("join", "joined"),
            ("gap_after", "longest gap after"),
            ("gap_before", "longest gap before"),
        )
    ):
        _against(left, results, metric, style.look(place), label)
    left.set_ylabel("Median over connections (ms)")
    for place, (metric, label) in enumerate(
        (("goodput_before", "before"), ("goodput_during", "during"), ("goodput_after", "after"))
    ):
        look = style.look(place)
        found = values(results, metric, REDIRECT).groupby("bundle").mean() / 1e6
        at = sorted(found.index, key=where.__getitem__)
        right.plot([where[each] for each in at], [found[each] for each in at], color=look.colour,
                   linestyle=look.line, marker=look.marker, label=label)  # fmt: skip
    right.set_ylabel("Goodput (Mb/s)")
    for axes in (left, right):
        axes.set_xlabel("Round-trip time (ms)")
        axes.set_ylim(bottom=0)
        axes.legend(loc="best")


def _against(axes: Axes, results: Results, metric: str, look: Any, label: str) -> None:
    where = results.parameter_of(_SWEPT)
    found = results.frame(metric, variant=VARIANT)
    own = found[found.source.str.startswith(f"{REDIRECT}.")]
    medians = (own.value * 1e3).groupby(own.bundle.map(where)).median()
    axes.plot(medians.index, medians, color=look.colour, linestyle=look.line, marker=look.marker,
              label=label)  # fmt: skip


FIGURES = (
    Figure(
        "paths",
        "Figure 3.1 redrawn",
        "The two operators before and after M1 redirects connections through M2 at operator B. "
        "Widths of links are their mean throughput, both ways together; told are the bytes that "
        "each wide-area path delivered (means over repeats). Thin grey links carried next to "
        "nothing.",
        draw_paths,
        size="wide",
        height_in=2.05,
        variants=(VARIANT,),
    ),
    Figure(
        "throughput",
        "Throughput by wide-area path",
        "One trial: what the two paths delivered, both ways together, stacked, every 100 ms; each "
        "contender has connections of its own. Lines mark when the operator acts.",
        draw_throughput,
        size="wide",
        variants=(VARIANT,),
    ),
    Figure(
        "gaps",
        "Gaps that applications see",
        "Longest silence at the receiver after the operator acted, of the connections that "
        "redirection moves and of the same ones under the baselines, all repeats together.",
        draw_gaps,
        variants=(VARIANT,),
    ),
    Figure(
        "rtt",
        "Redirection across round-trip times",
        "Left: time until the new subflow was confirmed, and the longest gap at the receiver. "
        "Right: goodput of all connections before the redirection, in the second that follows it, "
        "and after that.",
        draw_sweep,
        size="wide",
        variants=(VARIANT,),
    ),
)
