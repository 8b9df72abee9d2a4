"""The figures of migrating machines, drawn from records alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.run import Figure
from usecases.vm_migration.claims import first
from usecases.vm_migration.journey import MIGRATE_MPTCP, PHONE, TABLET
from usecases.vm_migration.journey_figure import draw_journey
from usecases.vm_migration.screens_figure import draw_screens
from usecases.vm_migration.setting_figure import draw_setting
from usecases.vm_migration.viewer_figure import draw_viewer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from testbed.report.results import Results

_SWEPT = (
    ("peer.bw", "Rate between the devices (Mb/s)"),
    ("machine.memory", "Memory of the machine (MB)"),
)
_DEVICES = {PHONE: 1.0, TABLET: 0.45}  # how strongly each is coloured


def draw_stall(results: Results, canvas: Canvas) -> None:
    """Stall against what was swept; where nothing was, stall and missed seconds by variant."""
    swept = [
        (key, text) for key, text in _SWEPT if len(set(results.parameter_of(key).values())) > 1
    ]
    if swept:
        _draw_swept(results, canvas, swept)
    else:
        _draw_stalls(results, canvas)


def _draw_swept(results: Results, canvas: Canvas, swept: list[tuple[str, str]]) -> None:
    """One panel for each parameter; bundles that differ in the other one are left out of it."""
    from testbed.report import figures

    grid = canvas.subplots(1, len(swept), sharey=True, squeeze=False)[0]
    for axes, (key, text) in zip(grid, swept, strict=True):
        _draw_against(results, axes, key)
        axes.set_xlabel(text)
        axes.set_ylim(bottom=0)
    grid[0].set_ylabel("Picture stands still (s)")
    figures.legend(list(grid))


def _draw_against(results: Results, axes: Axes, key: str) -> None:
    from testbed.run.statistics import estimate

    where = results.parameter_of(key)
    fixed = _common(results, key)
    for variant in results.variants:
        frame = results.frame("stall", variant=variant, source=first(results, variant).name)
        frame = frame[frame.bundle.isin(fixed)]
        points = {
            at: estimate(list(values))
            for at, values in frame.value.groupby(frame.bundle.map(where))
        }
        look = results.look(variant)
        axes.errorbar(
            list(points), [each.mean for each in points.values()],
            yerr=[each.half_width for each in points.values()], color=look.colour,
            linestyle=look.line, marker=look.marker, capsize=2, elinewidth=0.8, label=variant,
        )  # fmt: skip


def _common(results: Results, key: str) -> list[int]:
    """Bundles whose other swept parameters have the value that most bundles have."""
    chosen = list(range(len(results.bundles) or len(results.parameter_of(key))))
    for other, _text in _SWEPT:
        if other == key:
            continue
        values = results.parameter_of(other)
        found = [values[place] for place in chosen]
        usual = max(sorted(set(found)), key=found.count)
        chosen = [place for place in chosen if values[place] == usual]
    return chosen


def _draw_stalls(results: Results, canvas: Canvas) -> None:
    from testbed.report import figures

    leg = first(results, results.variants[-1]).name
    left, right = canvas.subplots(1, 2)
    for axes, metric, text in (
        (left, "stall", "Picture stands still (s)"),
        (right, "missed", "Programme missed (s)"),
    ):
        figures.bars(axes, results, metric, source=leg, digits=2)
        axes.set_ylabel(text)


def draw_energy(results: Results, canvas: Canvas) -> None:
    """Seconds of processor time at each device around the move, by variant."""
    from matplotlib.patches import Patch

    from testbed.report import style

    axes = canvas.subplots()
    for place, variant in enumerate(results.variants):
        leg, base = first(results, variant).name, 0.0
        colour = results.look(variant).colour
        for device, strength in _DEVICES.items():
            spent = results.mean("cpu", variant=variant, source=f"{leg}.{device}").mean
            axes.bar(place, spent, bottom=base, width=0.62, linewidth=0,
                     color=style.tint(colour, strength))  # fmt: skip
            base += spent
        axes.annotate(f"{base:.1f}", (place, base), xytext=(0, 3), textcoords="offset points",
                      ha="center", size=7)  # fmt: skip
    axes.set_xticks(range(len(results.variants)),
                    [name.replace("-", "-\n", 1) for name in results.variants])  # fmt: skip
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.08)
    axes.set_ylabel("Processor time (s)")
    handles = [
        Patch(facecolor=style.tint(style.INK, strength), label=device)
        for device, strength in _DEVICES.items()
    ]
    canvas.legend(handles=handles, loc="outside upper center", ncols=2)


def draw_waits(results: Results, canvas: Canvas) -> None:
    """Of each move of live migration: how long the machine stood still, how long no byte came."""
    from testbed.report import style

    axes = canvas.subplots()
    waits = {
        "machine\nstands still": results.values("downtime", variant=MIGRATE_MPTCP),
        "no byte for\nthe application": results.values("gap", variant=MIGRATE_MPTCP),
    }
    for place, values in enumerate(waits.values()):
        spread = [place + 0.24 * ((k % 7) - 3) / 3 for k in range(len(values))]
        axes.plot(values, spread, linestyle="", marker="o", markersize=3, alpha=0.75,
                  color=results.look(MIGRATE_MPTCP).colour, markeredgewidth=0)  # fmt: skip
        axes.plot([values.median()] * 2, [place - 0.36, place + 0.36], color=style.INK)
        axes.annotate(f"{values.median():.2f} s", (values.median(), place - 0.36),
                      xytext=(0, 2), textcoords="offset points", ha="center", size=7)  # fmt: skip
    axes.set_yticks(range(len(waits)), list(waits))
    axes.set_ylim(1.6, -0.75)
    axes.set_xlim(0, 1.15 * max(float(values.max()) for values in waits.values()))
    axes.set_xlabel("Time in each move (s)")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)


FIGURES = (
    Figure(
        "setting",
        "The setting (D3.1 figure 2.1)",
        "The running topology: links with what they were told to do and what they carried around "
        "the first move; the machine before and after it with its address, and the bytes of the "
        "subflow it had there.",
        draw_setting,
        size="wide",
        height_in=2.5,
        variants=(MIGRATE_MPTCP,),
    ),
    Figure(
        "viewer",
        "What the viewer sees of a move (D3.1 figure 2.2)",
        "One trial of each variant around its first move: position in the live programme and "
        "what the player holds, by its own reports; below, what the machine does meanwhile.",
        draw_viewer,
        size="wide",
        height_in=4.4,
    ),
    Figure(
        "journey",
        "One journey over three moves",
        "One trial of live migration with Multipath TCP. The video's throughput by path and the "
        "memory's, by the kernel's counters of links; the player's buffer; pictures it decodes. "
        "Moves are shaded.",
        draw_journey,
        size="wide",
        height_in=4.8,
        variants=(MIGRATE_MPTCP,),
    ),
    Figure(
        "stall",
        "How long the picture stands still",
        "In the move that all variants make. From a sweep: against the rate between the devices "
        "and the memory of the machine. From one run: by variant, and what was missed of the "
        "live programme. Means and 95% intervals over repeats.",
        draw_stall,
        size="wide",
    ),
    Figure(
        "screens",
        "The display before and after (D3.1 figure 2.3)",
        "Screenshots of the machine's display on the phone and, after the move, on the tablet; "
        "pixels of equal size.",
        draw_screens,
        size="wide",
        height_in=3.0,
        variants=(MIGRATE_MPTCP,),
    ),
    Figure(
        "waits",
        "What a move takes",
        "Each move of live migration with Multipath TCP a dot, with medians: from the machine's "
        "stop to its resumption, and to the next byte the application reads.",
        draw_waits,
        variants=(MIGRATE_MPTCP,),
    ),
    Figure(
        "energy",
        "Processor time at each device",
        "What the first move takes, and the player before and after it, in seconds of processor "
        "time of each device's control group: a proxy for energy.",
        draw_energy,
    ),
)
