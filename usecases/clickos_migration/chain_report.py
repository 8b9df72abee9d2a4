"""What is claimed of variant chain, and its figures, both from the records alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from testbed.run import Claim, Figure, Verdict
from usecases.clickos_migration.redirect_claims import gap_bound
from usecases.clickos_migration.stacked import draw_paths_over_time

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from testbed.report.results import Results

VARIANT = "chain"
_DIRECTIONS = {"up": "uploads", "down": "downloads"}
_LEAST_SEEN = 0.9  # of what the applications received: the rest was in queues at either end
_MOST_UNSEEN = 0.02
_LEAST_KEPT = 0.9  # of the goodput through M1 alone


def by_length(results: Results, metric: str) -> pandas.DataFrame:
    """Mean over trials of a metric: a row for each length, a column for each connection or box."""
    frame = results.frame(metric, variant=VARIANT)
    parts = frame.source.str.split(".", n=1, expand=True)
    keys = [parts[0].astype(int).rename("length"), parts[1].rename("who")]
    return frame.value.groupby(keys).mean().unstack("who")


def by_direction(table: pandas.DataFrame) -> dict[str, pandas.DataFrame]:
    """The columns of a table of connections that belong to each direction."""
    return {
        direction: table[[name for name in table.columns if name.startswith(direction)]]
        for direction in _DIRECTIONS
    }


def judge_survival(results: Results) -> Verdict:
    """Every redirection of every length succeeded, both connections came to their end."""
    wanted, redirected, connections, survivors = (
        results.values(metric, variant=VARIANT).sum()
        for metric in ("wanted", "redirected", "connections", "survivors")
    )
    return Verdict.of(
        connections > 0 and survivors == connections and redirected == wanted,
        f"{redirected:.0f} of {wanted:.0f} redirections, {survivors:.0f} of {connections:.0f} "
        "connections with equal hashes at their end",
    )


def judge_seen(results: Results) -> Verdict:
    """Boxes of the chain count at least what arrived, the others next to nothing."""
    seen = by_length(results, "seen")
    delivered = by_length(results, "delivered").sum(axis="columns")
    within, beyond = 1e9, 0.0
    for length in seen.index:
        shares = seen.loc[length] / delivered[length]
        inside = [f"m{number}" for number in range(1, length + 1)]
        within = min(within, float(shares[inside].min()))
        beyond = max([beyond, *map(float, shares.drop(inside))])
    return Verdict.of(
        within >= _LEAST_SEEN and beyond <= _MOST_UNSEEN,
        f"a box of the chain saw at least {within:.0%} of what arrived, one that was not in it at "
        f"most {beyond:.1%}, at lengths {seen.index.min()} to {seen.index.max()}",
    )


def judge_goodput(results: Results) -> Verdict:
    """Goodput through each chain against that through M1 alone."""
    total = by_length(results, "goodput").sum(axis="columns")
    least = total.idxmin()
    kept = float(total[least] / total[1])
    return Verdict.of(
        kept >= _LEAST_KEPT,
        f"{total[1] / 1e6:.2f} Mb/s through M1 alone; least, {kept:.0%} of it, through {least}",
    )


def judge_gap(results: Results) -> Verdict:
    """Median over all steps of how much longer than before the longest gap was."""
    rtt_s = results.values("rtt", variant=VARIANT).mean()
    bound = gap_bound(rtt_s)
    added = results.values("added_gap", variant=VARIANT)
    return Verdict.of(
        float(added.median()) <= bound,
        f"median {added.median() * 1e3:.0f} ms, largest {added.max() * 1e3:.0f} ms "
        f"({len(added)} steps), bound {bound * 1e3:.0f} ms; a round trip took "
        f"{rtt_s * 1e3:.0f} ms",
    )


CLAIMS = tuple(
    Claim(f"chain-{name}", statement, "D3.1 3.1", judge, variants=(VARIANT,))
    for name, statement, judge in (
        (
            "survive",
            "Live connections are led through one more middlebox after the other, and survive.",
            judge_survival,
        ),
        ("seen", "Every middlebox of the chain sees all bytes, no other box does.", judge_seen),
        ("goodput", "A longer chain costs no goodput.", judge_goodput),
        (
            "gap",
            "At each step the application sees a gap of at most two round trips and 60 ms more "
            "than without.",
            judge_gap,
        ),
    )
)


def draw_lengths(results: Results, canvas: Canvas) -> None:
    """Goodput, gaps and what boxes saw, against the length of the chain."""
    goodput, gap, boxes = canvas.subplots(1, 3, width_ratios=(4, 4, 5))
    rates = by_direction(by_length(results, "goodput") / 1e6)
    _draw_lines(goodput, {name: table.sum(axis="columns") for name, table in rates.items()})
    goodput.set_ylabel("Goodput (Mb/s)")
    goodput.legend(loc="lower right")
    gaps = by_direction(by_length(results, "gap") * 1e3)
    _draw_lines(gap, {name: table.median(axis="columns") for name, table in gaps.items()})
    gap.set_ylabel("Longest gap at the step (ms)")
    _draw_seen(boxes, by_length(results, "seen") / 1e6)


def _draw_lines(axes: Axes, lines: Mapping[str, pandas.Series[float]]) -> None:
    from testbed.report import style

    for place, (direction, line) in enumerate(lines.items()):
        look = style.look(place)
        axes.plot(line.index, line, color=look.colour, linestyle=look.line, marker=look.marker,
                  label=_DIRECTIONS[direction])  # fmt: skip
        axes.set_xticks(list(line.index))
    axes.set_xlabel("Middleboxes on the way")
    axes.set_ylim(0, 1.15 * max(float(line.max()) for line in lines.values()))


def _draw_seen(axes: Axes, table: pandas.DataFrame) -> None:
    """A cell for each length and box: how much the box received, both ways together."""
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("seen", ["#ffffff", "#56B4E9"])
    rows = [f"m{number}" for number in sorted(int(name[1:]) for name in table.columns)]
    cells = table[rows].to_numpy().T
    axes.imshow(cells, cmap=shades, aspect="auto", vmin=0)
    for row, line in enumerate(cells):
        for column, value in enumerate(line):
            axes.text(column, row, f"{value:.1f}" if value > 0.05 else "0", ha="center",
                      va="center", size=6.5)  # fmt: skip
    axes.set_xticks(range(len(table.index)), [str(length) for length in table.index])
    axes.set_yticks(range(len(rows)), [name.upper() for name in rows])
    axes.set_xlabel("Middleboxes on the way")
    axes.set_title("Seen by each box (MB)")
    axes.grid(visible=False)
    axes.tick_params(length=0)


def draw_time(results: Results, canvas: Canvas) -> None:
    """Throughput of the wide-area paths through one trial."""
    draw_paths_over_time(canvas, results, VARIANT, {VARIANT: ""})


FIGURES = (
    Figure(
        "chain",
        "Chains of middleboxes",
        "Uploads and downloads led through one more middlebox at a time (means over repeats). "
        "Left: goodput while each length is kept, connections together. Middle: longest silence "
        "at the receiver when the box is added, median of connections. Right: bytes that each box "
        "received meanwhile, both ways together.",
        draw_lengths,
        size="wide",
        variants=(VARIANT,),
    ),
    Figure(
        "chain-time",
        "Throughput as the chain grows",
        "One trial: what the two wide-area paths delivered, both ways together, stacked, every "
        "100 ms. Lines mark when a middlebox is added.",
        draw_time,
        size="wide",
        variants=(VARIANT,),
    ),
)
