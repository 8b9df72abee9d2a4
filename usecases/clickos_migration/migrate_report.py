"""What is claimed of variant migrate, and its figures, from records alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testbed.run import Claim, Figure, MissingData, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from testbed.report.results import Results

MIGRATE = "migrate"
FUNCTION, FORGETFUL, VM, WIDE = "function", "forgetful", "vm", "redirected"
_TITLES = {
    FUNCTION: "light function, with its state",
    FORGETFUL: "light function, state lost",
    VM: "virtual machine",
}
MOST_DOWNTIME_S = 0.1
LEAST_BYTES, LEAST_TIME = 100, 20  # times fewer bytes, and less time, than the virtual machine
_ENOUGH = 1000  # live connections that the claims are made for


def _numbers(results: Results, name: str) -> list[int]:
    """With how many connections a contender was moved, ascending."""
    sources = results.frame("connections", variant=MIGRATE).source.unique()
    found = (source.removeprefix(f"{name}-") for source in sources)
    numbers = sorted(int(each) for each in found if each.isdigit())
    if not numbers:
        raise MissingData(f"{_TITLES[name]}: it was not tried")
    return numbers


def _mean(results: Results, metric: str, name: str, number: int) -> float:
    return results.mean(metric, variant=MIGRATE, source=f"{name}-{number}").mean


def _sum(results: Results, metric: str, source: str) -> float:
    return float(results.values(metric, variant=MIGRATE, source=source).sum())


# -- claims --------------------------------------------------------------------------------------


def judge_none_lost(results: Results) -> Verdict:
    """Connections lost with the state moved, and every message verified."""
    numbers = _numbers(results, FUNCTION)
    lost = {n: _sum(results, "lost", f"{FUNCTION}-{n}") for n in numbers}
    corrupt = float(results.values("corrupt", variant=MIGRATE).sum())
    packets = _mean(results, "packets_lost", FUNCTION, numbers[-1])
    slowest = _mean(results, "slowest", FUNCTION, numbers[-1])
    told = ", ".join(f"{count:.0f} of {n:,}" for n, count in lost.items())
    measured = (
        f"lost {told}; {corrupt:.0f} messages corrupt; with {numbers[-1]:,} connections "
        f"{packets:.0f} packets lost and the slowest exchange {slowest * 1e3:.0f} ms"
    )
    return Verdict.of(not any(lost.values()) and not corrupt, measured)


def judge_downtime(results: Results) -> Verdict:
    """Downtime by the mover's clock, and the longest silence at the clients beside it."""
    numbers = [n for n in _numbers(results, FUNCTION) if n <= _ENOUGH]
    worst = max(
        float(results.values("downtime", variant=MIGRATE, source=f"{FUNCTION}-{n}").max())
        for n in numbers
    )
    silence = max(_mean(results, "silence", FUNCTION, n) for n in numbers)
    measured = (
        f"{worst * 1e3:.0f} ms at most with up to {numbers[-1]:,} connections; clients together "
        f"heard nothing for {silence * 1e3:.0f} ms at most"
    )
    return Verdict.of(worst < MOST_DOWNTIME_S, measured)


def judge_machine(results: Results) -> Verdict:
    """Bytes on the interconnect and time of both, with the same connections."""
    both = set(_numbers(results, FUNCTION)) & set(_numbers(results, VM))
    if not both:
        raise MissingData("function and virtual machine were not moved with equal connections")
    number = max(both)
    light, heavy = (
        {metric: _mean(results, metric, name, number) for metric in ("carried", "total")}
        for name in (FUNCTION, VM)
    )
    fewer, quicker = (heavy[metric] / light[metric] for metric in ("carried", "total"))
    measured = (
        f"{fewer:,.0f} times fewer bytes ({light['carried'] / 1e3:,.0f} kB, "
        f"{heavy['carried'] / 1e6:,.1f} MB) and {quicker:.0f} times less time "
        f"({light['total']:.2f} s, {heavy['total']:.1f} s) with {number:,} connections"
    )
    return Verdict.of(fewer >= LEAST_BYTES and quicker >= LEAST_TIME, measured)


def judge_forgetful(results: Results) -> Verdict:
    """Connections lost where the state is not moved."""
    number = _numbers(results, FORGETFUL)[-1]
    lost = _mean(results, "lost", FORGETFUL, number)
    machine = ""
    if _tried(results, VM):
        machine = f"; the virtual machine lost {_mean(results, 'lost', VM, number):.0f}"
        known = _mean(results, "films_after", VM, number)
        machine += "" if known else ", as its guest did not outlive the move"
    return Verdict.of(lost > 0, f"{lost:.0f} of {number:,} lost{machine}")


def judge_known(results: Results) -> Verdict:
    """Connections that inspection knew before the move, and after it."""
    number = _numbers(results, FUNCTION)[-1]
    rows = [(f"{FUNCTION}-{number}", "by state"), (WIDE, "by redirection")]
    counts = {
        how: tuple(
            results.mean(f"films_{when}", variant=MIGRATE, source=source).mean
            for when in ("before", "after")
        )
        for source, how in rows
    }
    measured = ", ".join(
        f"{how} {after:.0f} of {before:.0f}" for how, (before, after) in counts.items()
    )
    right = all(before > 0 and after == before for before, after in counts.values())
    return Verdict.of(right, measured)


def judge_wide(results: Results) -> Verdict:
    """Connections redirected to other addresses before the function at M1 ended."""
    total, moved, lost = (
        _sum(results, metric, WIDE) for metric in ("connections", "redirected", "lost")
    )
    slowest = results.mean("slowest", variant=MIGRATE, source=WIDE).mean
    took = results.mean("total", variant=MIGRATE, source=WIDE).mean
    measured = (
        f"{moved:.0f} of {total:.0f} redirected in {took:.2f} s, {lost:.0f} lost when M1 ended; "
        f"slowest exchange {slowest * 1e3:.0f} ms"
    )
    return Verdict.of(moved == total and not lost, measured)


def _claim(name: str, statement: str, judge: Any) -> Claim:
    return Claim(f"migrate-{name}", statement, "D3.1 3.1", judge, variants=(MIGRATE,))


CLAIMS = (
    _claim(
        "none-lost",
        "A middlebox moves to another data centre with the state of its live connections, and "
        "none of them is lost.",
        judge_none_lost,
    ),
    _claim("downtime", "It is down for less than 100 ms.", judge_downtime),
    _claim(
        "machine",
        "It moves in at least 100 times fewer bytes and 20 times less time than the same function "
        "in a virtual machine.",
        judge_machine,
    ),
    _claim("forgetful", "Moved without its state, it loses connections.", judge_forgetful),
    _claim(
        "known",
        "What inspection has found of a connection is still known after the move.",
        judge_known,
    ),
    _claim(
        "wide",
        "Where addresses do not move, redirection takes all connections to the other operator.",
        judge_wide,
    ),
)


# -- figures -------------------------------------------------------------------------------------

_PLACES = {FUNCTION: 0, VM: 1, FORGETFUL: 3}


def draw_scale(results: Results, canvas: Canvas) -> None:
    """Time, downtime and bytes of moves against the number of live connections."""
    from testbed.report import figures, style

    left, right = canvas.subplots(1, 2)
    for name in (FUNCTION, VM):
        _draw_against(results, left, "total", name, label=_TITLES[name])
        _draw_against(results, left, "downtime", name, label="", open_marker=True)
        _draw_against(results, right, "carried", name, label=_TITLES[name], scale=1e-6)
    left.plot([], [], color=style.INK, label="total")
    left.plot([], [], color=style.INK, linestyle=(0, (1, 1)), label="downtime")
    left.set_ylabel("Time (s)")
    right.set_ylabel("Bytes between data centres (MB)")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("Live connections")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:g}")
    figures.legend([left, right])


def _draw_against(
    results: Results,
    axes: Axes,
    metric: str,
    name: str,
    *,
    label: str,
    scale: float = 1.0,
    open_marker: bool = False,
) -> None:
    from testbed.report import style
    from testbed.run.statistics import estimate

    if name == VM and not _tried(results, VM):
        return
    numbers = _numbers(results, name)
    points = [
        estimate([v * scale for v in results.values(metric, variant=MIGRATE, source=f"{name}-{n}")])
        for n in numbers
    ]
    shape = style.look(_PLACES[name])
    if name == VM:  # hardly a matter of connections: a line to compare with
        level = sum(each.mean for each in points) / len(points)
        axes.axhline(level, color=shape.colour, linewidth=0.7, linestyle=(0, (4, 2)))
    axes.errorbar(
        numbers, [each.mean for each in points], yerr=[each.half_width for each in points],
        color=shape.colour, marker=shape.marker, capsize=2, elinewidth=0.8, label=label or None,
        linestyle=(0, (1, 1)) if open_marker else "-",
        markerfacecolor="white" if open_marker else shape.colour,
    )  # fmt: skip


def draw_timeline(results: Results, canvas: Canvas) -> None:
    """Exchanges a second around each contender's move, its downtime shaded."""
    names = [name for name in (FUNCTION, VM, FORGETFUL) if _tried(results, name)]
    number = _numbers(results, FORGETFUL)[-1]
    grid = canvas.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(grid, names, strict=True):
        _draw_move(results, axes, name, number)
        axes.set_title(_TITLES[name])
        axes.set_xlabel("Time since the move began (s)")
    grid[0].set_ylabel("Exchanges a second")


def _tried(results: Results, name: str) -> bool:
    return bool(results.frame("total", variant=MIGRATE).source.str.startswith(f"{name}-").any())


def _draw_move(results: Results, axes: Axes, name: str, number: int) -> None:
    from testbed.report import style

    source = f"{name}-{number}"
    moves = results.events("moved", variant=MIGRATE)
    move = moves[(moves.contender == source) & (moves.bundle == 0)].iloc[0]
    samples = results.samples("exchanges", variant=MIGRATE)
    own = samples.source.str.startswith(f"{source}.")
    samples = samples[own & (samples.bundle == 0) & (samples.repeat == move["repeat"])]
    rate, after = (float(results.parameter(f"migrate.{key}")) for key in ("rate", "after"))
    end = move.total_s + after  # the roll is called then, faster than exchanges are made
    samples = samples[samples.time_s - move.began < end]
    bins = ((samples.time_s - move.began) / _BIN_S).round().astype(int)
    sources = samples.source.nunique()
    rates = samples.value.groupby(bins).sum() / (samples.value.groupby(bins).count() / sources)
    shape = style.look(_PLACES[name])
    times = rates.index * _BIN_S
    axes.fill_between(times, rates, color=style.tint(shape.colour, 0.35), linewidth=0)
    axes.plot(times, rates, color=shape.colour, linewidth=0.9)
    back = move.switched - move.began
    axes.axvspan(back - move.downtime_s, back, color=style.WARNING, alpha=0.25, linewidth=0)
    lost = _mean(results, "lost", name, number)
    axes.annotate(
        f"moved in {move.total_s:.2g} s\ndown {move.downtime_s * 1e3:.0f} ms\n"
        f"{lost:.0f} of {number:,} lost",
        (0.03, 0.97), xycoords="axes fraction", size=6.5, va="top",
    )  # fmt: skip
    axes.set_xlim(-1, end)
    axes.set_ylim(0, _HEADROOM * rate)


_BIN_S = 0.04
_HEADROOM = 2.6  # times the rate: what was held up is made up for


def draw_interruptions(results: Results, canvas: Canvas) -> None:
    """Distribution over connections of each one's slowest exchange."""
    from testbed.report import figures, style

    axes = canvas.subplots()
    number = _numbers(results, FORGETFUL)[-1]
    for name in (FUNCTION, VM):
        source = f"{name}-{number}"
        if not _tried(results, name) or _mean(results, "lost", name, number):
            continue  # a connection that is lost waits for ever
        values = sorted(results.samples("slowest_of_each", variant=MIGRATE, source=source).value)
        shares = [(place + 1) / len(values) for place in range(len(values))]
        shape = style.look(_PLACES[name])
        axes.step([value * 1e3 for value in values], shares, where="post", color=shape.colour,
                  label=_TITLES[name])  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(20, 2000)
    axes.set_xticks([20, 50, 100, 200, 500, 1000, 2000])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("Slowest exchange of a connection (ms)")
    axes.set_ylabel("Share of connections")
    axes.set_ylim(0, 1.02)
    figures.legend(axes)


FIGURES = (
    Figure(
        "migrate-scale",
        "Moving a middlebox, and moving its machine",
        "Left: total time of a move and, dotted, its downtime; right: bytes that the link between "
        "the data centres carried for it, by its own counters. Both against the number of live "
        "connections; means and 95% intervals over repeats.",
        draw_scale,
        size="wide",
        variants=(MIGRATE,),
    ),
    Figure(
        "migrate-timeline",
        "What clients see of a move",
        "Verified exchanges a second of all connections together, every 40 ms of one trial. "
        "Shaded: the downtime that the mover reports.",
        draw_timeline,
        size="wide",
        variants=(MIGRATE,),
    ),
    Figure(
        "migrate-interruptions",
        "How long connections wait",
        "Distribution over all connections of each one's slowest exchange around the move.",
        draw_interruptions,
        variants=(MIGRATE,),
    ),
)
