"""What is claimed of variant burst, and its figures, from records alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testbed.run import Claim, Figure, MissingData, Verdict
from usecases.clickos_migration.prices import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from testbed.report.results import Results

BURST = "burst"
SMALL, LARGE = "small", "large"
DEAR_COMPUTE, DEAR_NETWORK = "dear-compute", "dear-network"
SCENARIOS = (DEAR_COMPUTE, DEAR_NETWORK)
CONTENDERS = (SMALL, LARGE, *SCENARIOS)
PARTS = ("own path", "rented network", "rented functions")

_TITLES = {
    SMALL: "small own path",
    LARGE: "large own path",
    DEAR_COMPUTE: "renting, compute dear",
    DEAR_NETWORK: "renting, network dear",
}
_LEAST_GAIN = 1.1  # served over a small path's, that counts as serving the crowd
_ALL = 0.95  # of the demand, in a bin, that counts as all of it
_BIN_S = 0.2
_MANY = 4  # connections redirected at once whose number is written down
_COINCIDE_S = 0.4  # orders no further apart are drawn as one


def _mean(results: Results, metric: str, source: str) -> float:
    return results.mean(metric, variant=BURST, source=source).mean


# -- claims --------------------------------------------------------------------------------------


def judge_relief(results: Results) -> Verdict:
    """What the crowds got of what they asked for, against the small path alone."""
    small = _mean(results, "served", SMALL)
    large = _mean(results, "served", LARGE)
    rented = {name: _mean(results, "served", name) for name in SCENARIOS}
    relieved = max(_relief(results, name) for name in SCENARIOS)
    detected = max(_mean(results, "detected", name) for name in SCENARIOS)
    shares = " and ".join(f"{share:.0%}" for share in rented.values())
    measured = (
        f"{shares} of what was asked for, against {small:.0%} by the small path and {large:.0%} by "
        f"the large one; decided {detected:.1f} s after the path was full, all was served "
        f"{relieved:.1f} s after the first wave's arrival"
    )
    return Verdict.of(min(rented.values()) >= _LEAST_GAIN * small, measured)


def _relief(results: Results, name: str) -> float:
    """From the first wave's arrival until all of what is asked for is served (s; first trial)."""
    start = _start(results, name)
    goodput = _goodput(results, name, start)
    demand = _demand(results, name)
    own = float(results.parameter("paths.direct_bw"))
    arrival = float(demand.time_s[demand.value > own * 1e6].min()) - start
    decided = float(_of(results, "rents", name).time_s.min()) - start
    for at, served in goodput[goodput.index > decided].items():
        asked = demand[demand.time_s - start <= at].value.iloc[-1] / 1e6
        if served >= _ALL * asked:
            return float(at) - arrival
    raise MissingData(f"{name}: what was asked for was never served")


def judge_cost(results: Results) -> Verdict:
    """Rented for a while against owned all the time, at both price lists."""
    pairs = {
        name: (_mean(results, "cost", f"{name}.{name}"), _mean(results, "cost", f"{LARGE}.{name}"))
        for name in SCENARIOS
    }
    measured = ", ".join(
        f"{_TITLES[name].removeprefix('renting, ')}: {rented:.0f} against {owned:.0f}"
        for name, (rented, owned) in pairs.items()
    )
    return Verdict.of(all(rented < owned for rented, owned in pairs.values()), measured)


def judge_choice(results: Results) -> Verdict:
    """Which plan was chosen, and what the other run's use would have cost at these prices."""
    wanted = {DEAR_COMPUTE: Plan.TRAFFIC, DEAR_NETWORK: Plan.PROCESSING}
    rents = results.events("rents", variant=BURST)
    chosen = {name: set(rents[rents.contender == name].plan) for name in SCENARIOS}
    other = dict(zip(SCENARIOS, SCENARIOS[::-1], strict=True))
    costs = {
        name: (_mean(results, "cost", f"{name}.{name}"),
               _mean(results, "cost", f"{other[name]}.{name}"))
        for name in SCENARIOS
    }  # fmt: skip
    measured = "; ".join(
        f"{_TITLES[name].removeprefix('renting, ')}: {', '.join(sorted(chosen[name]))}, "
        f"{costs[name][0]:.0f} (the other way {costs[name][1]:.0f})"
        for name in SCENARIOS
    )
    right = all(chosen[name] == {wanted[name].value} for name in SCENARIOS)
    cheaper = all(mine < others for mine, others in costs.values())
    return Verdict.of(right and cheaper, measured)


def judge_compression(results: Results) -> Verdict:
    """Bytes on the interconnect with and without compression; every exchange verified."""
    plain, squeezed = (_mean(results, "carried", name) for name in SCENARIOS)
    raw, out = (_mean(results, f"tunnel_{way}", DEAR_NETWORK) for way in ("in", "out"))
    lost = sum(
        float(results.values("lost", variant=BURST, source=name).sum()) for name in CONTENDERS
    )
    corrupt = float(results.values("corrupt", variant=BURST).sum())
    verified = _mean(results, "verified", DEAR_NETWORK)
    measured = (
        f"{squeezed / 1e6:.1f} MB carried instead of {plain / 1e6:.1f}, the tunnel's share "
        f"{raw / out:.2f} times fewer; {verified / 1e6:.1f} MB verified, {corrupt:.0f} messages "
        f"corrupt, {lost:.0f} connections lost"
    )
    return Verdict.of(squeezed < plain and out < raw and not corrupt and not lost, measured)


CLAIMS = (
    Claim(
        "burst-relief",
        "Capacity rented while a flash crowd lasts serves it: live and new connections get at "
        "least a tenth more than by the own path alone.",
        "D3.1 3.1.3",
        judge_relief,
        variants=(BURST,),
    ),
    Claim(
        "burst-cost",
        "Renting for the crowd costs less than an own path provisioned for it.",
        "D3.1 3.1.3",
        judge_cost,
        variants=(BURST,),
    ),
    Claim(
        "burst-choice",
        "What is rented follows the prices: network alone where compute is dear, compression too "
        "where network is dear, each cheaper than the other would have been.",
        "D3.1 3.1.3",
        judge_choice,
        variants=(BURST,),
    ),
    Claim(
        "burst-compression",
        "Compressed at one end and expanded at the other, the crowd's traffic crosses between the "
        "operators in fewer bytes, and every connection lives on with every byte right.",
        "D3.1 3.1.3",
        judge_compression,
        variants=(BURST,),
    ),
)


# -- figures -------------------------------------------------------------------------------------


def draw_timeline(results: Results, canvas: Canvas) -> None:
    """Demand, own capacity and goodput of each contender in one trial, decisions marked."""
    from testbed.report import figures

    grid = canvas.subplots(2, 2, sharex=True, sharey=True)
    for axes, name in zip(grid.flat, CONTENDERS, strict=True):
        _draw_contender(results, axes, name)
        axes.set_title(_TITLES[name])
    grid[0, 0].set_ylim(0, 1.35 * float(results.samples("demand", variant=BURST).value.max()) / 1e6)
    for axes in grid[1]:
        axes.set_xlabel("Time (s)")
    for axes in grid[:, 0]:
        axes.set_ylabel("Mb/s")
    figures.legend(list(grid.flat))


def _draw_contender(results: Results, axes: Axes, name: str) -> None:
    from testbed.report import style

    start = _start(results, name)
    goodput = _goodput(results, name, start)
    colour = style.look(0).colour
    axes.fill_between(goodput.index, goodput, color=style.tint(colour, 0.35), linewidth=0)
    axes.plot(goodput.index, goodput, color=colour, label="goodput")
    demand = _demand(results, name)
    axes.step(demand.time_s - start, demand.value / 1e6, color=style.INK, linewidth=0.9,
              linestyle=(0, (4, 2)), label="demand")  # fmt: skip
    own = float(results.parameter("burst.large" if name == LARGE else "paths.direct_bw"))
    axes.axhline(own, color=style.look(1).colour, linewidth=0.9, label="own path")
    axes.set_xlim(0, float(demand.time_s.max()) - start)
    if name in SCENARIOS:
        _draw_decisions(results, axes, name, start)


def _start(results: Results, name: str) -> float:
    events = _first(results.events("contender", variant=BURST))
    return float(events[events["name"] == name].time_s.iloc[0])


def _demand(results: Results, name: str) -> Any:
    return _first(results.samples("demand", variant=BURST, source=name))


def _first(samples: Any) -> Any:
    """Samples of the first trial."""
    return samples[(samples.bundle == 0) & (samples.repeat == samples.repeat.min())]


def _goodput(results: Results, name: str, start: float) -> Any:
    """Mb/s of all crowds of a contender together, per 200 ms since its start."""
    samples = _first(results.samples("goodput", variant=BURST))
    samples = samples[samples.source.str.startswith(f"{name}.")]
    bins = ((samples.time_s - start - 1e-3) / _BIN_S).astype(int)
    # samples are per 100 ms: two of a source to a bin
    sums = samples.value.groupby(bins).sum() / 1e6 / (_BIN_S / 0.1)
    sums.index = (sums.index + 0.5) * _BIN_S
    return sums


def _draw_decisions(results: Results, axes: Axes, name: str, start: float) -> None:
    from testbed.report import style

    for kind in ("rents", "releases"):
        for _, event in _of(results, kind, name).iterrows():
            at = event.time_s - start
            axes.axvline(at, color=style.INK, linewidth=0.6, linestyle=(0, (1, 1)))
            axes.annotate(
                event.label, (at, 0.99), xytext=(2, 0), size=6.5, va="top",
                xycoords=("data", "axes fraction"), textcoords="offset points",
            )  # fmt: skip
    orders = _together(_of(results, "redirects", name))
    level = axes.get_ylim()[1] * 0.84
    axes.plot([at - start for at, _ in orders], [level] * len(orders), linestyle="", marker="v",
              color=style.look(2).colour, label="connections redirected")  # fmt: skip
    for at, asked in orders:
        if asked >= _MANY:
            axes.annotate(f"{asked:.0f}", (at - start, level), xytext=(3, 0), size=6.5,
                          va="center", textcoords="offset points")  # fmt: skip


def _together(orders: Any) -> list[tuple[float, float]]:
    """Times of orders and connections asked for; orders that nearly coincide count as one."""
    found: list[tuple[float, float]] = []
    for _, order in orders.sort_values("time_s").iterrows():
        if found and order.time_s - found[-1][0] < _COINCIDE_S:
            found[-1] = found[-1][0], found[-1][1] + order.asked
        else:
            found.append((order.time_s, order.asked))
    return found


def _of(results: Results, kind: str, name: str) -> Any:
    """Events of a kind of one contender in the first trial."""
    events = _first(results.events(kind, variant=BURST))
    return events[events.contender == name]


def draw_cost(results: Results, canvas: Canvas) -> None:
    """Cost of each contender by its parts, at both price lists."""
    grid = canvas.subplots(1, 2)
    for axes, scenario in zip(grid, SCENARIOS, strict=True):
        _draw_bill(results, axes, scenario)
    grid[0].set_ylabel("Cost of the trial")
    handles, labels = grid[0].get_legend_handles_labels()
    figure: Any = canvas
    figure.legend(handles, labels, loc="outside upper center", ncols=3)


def _draw_bill(results: Results, axes: Axes, scenario: str) -> None:
    from testbed.report import style

    other = SCENARIOS[1 - SCENARIOS.index(scenario)]
    names = (SMALL, LARGE, scenario, other)
    base = [0.0] * len(names)
    for place, part in enumerate(PARTS):
        costs = [_mean(results, f"cost of {part}", f"{name}.{scenario}") for name in names]
        axes.bar(range(len(names)), costs, bottom=base, width=0.62, label=part,
                 color=style.tint(style.look(place).colour), linewidth=0)  # fmt: skip
        base = [low + cost for low, cost in zip(base, costs, strict=True)]
    for place, name in enumerate(names):
        served = _mean(results, "served", name)
        axes.annotate(f"{base[place]:.0f}\n{served:.0%} served", (place, base[place]),
                      xytext=(0, 2), textcoords="offset points", ha="center", size=6.5)  # fmt: skip
    plans = {DEAR_COMPUTE: "traffic\nonly", DEAR_NETWORK: "processing\ntoo"}
    ticks = ["small", "large", f"{plans[scenario]}\n(chosen)", plans[other]]
    axes.set_xticks(range(len(names)), ticks)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, max(base) * 1.22)
    axes.set_title(_TITLES[scenario].removeprefix("renting, ").capitalize())


FIGURES = (
    Figure(
        "burst-timeline",
        "A flash crowd in two waves",
        "What connections ask for, what their users get verified (one way; the other is the "
        "same), and the rate of operator A's own path. Where capacity is rented, the decisions "
        "and how many connections were redirected. What had to wait behind a lost packet arrives "
        "at once: short peaks above the rate are such.",
        draw_timeline,
        size="wide",
        height_in=3.6,
        variants=(BURST,),
    ),
    Figure(
        "burst-cost",
        "What the crowd costs",
        "Cost of the whole trial at both price lists, by what it is for; above, what the "
        "connections got of what they asked for. The last bar is what the plan that was not "
        "chosen would have cost, by its measured use.",
        draw_cost,
        size="wide",
        variants=(BURST,),
    ),
)
