"""The figures of trusted resource pooling, drawn from records alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from testbed.run import Figure, MissingData
from usecases.trusted_pooling.plan import BROWSING, DOWNLOAD, OUTAGE, UPLOAD, VIDEO
from usecases.trusted_pooling.timeline import draw_timeline
from usecases.trusted_pooling.variants import TRUSTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from testbed.report.results import Results

_KINDS = (
    ("web: logins, cookies, answers", (BROWSING, VIDEO), 1.0),
    ("live connection", (UPLOAD, DOWNLOAD), 0.62),
    ("while the trusted path fails", (OUTAGE,), 0.3),
)
_SWITCHES = (
    ("to sensitive, upload", f"{UPLOAD}_switch_to_sensitive"),
    ("to sensitive, download", f"{DOWNLOAD}_switch_to_sensitive"),
    ("back to all paths, upload", f"{UPLOAD}_switch_back"),
    ("back to all paths, download", f"{DOWNLOAD}_switch_back"),
)


def _ticks(axes: Axes, names: tuple[str, ...]) -> None:
    axes.set_xticks(range(len(names)), list(names))
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(names) - 0.4)


def draw_leaks(results: Results, canvas: Canvas) -> None:
    """Sensitive bytes in the attacker's capture, and the secrets it made of them."""
    left, right = canvas.subplots(1, 2, width_ratios=(3, 2))
    _draw_bytes(results, left)
    _draw_loot(results, right)


def _mean_kb(results: Results, metric: str, variant: str, phases: tuple[str, ...]) -> float:
    return sum(results.mean(metric, variant=variant, source=each).mean for each in phases) / 1e3


def _draw_bytes(results: Results, axes: Axes) -> None:
    from matplotlib.patches import Patch

    from testbed.report import style

    sent, top = 0.0, 0.0
    for place, variant in enumerate(results.variants):
        base = 0.0
        for _label, phases, alpha in _KINDS:
            height = _mean_kb(results, "leaked", variant, phases)
            colour = results.look(variant).colour
            axes.bar(place, height, bottom=base, width=0.62, color=colour, alpha=alpha, linewidth=0)
            base += height
        all_phases = tuple(phase for _l, phases, _a in _KINDS for phase in phases)
        sent = max(sent, _mean_kb(results, "sensitive_sent", variant, all_phases))
        text = f"{base:.0f} kB" if base else "0 bytes"
        weight = "normal" if base else "bold"
        axes.annotate(text, (place, base), xytext=(0, 3), textcoords="offset points",
                      ha="center", size=7, weight=weight)  # fmt: skip
        top = max(top, base)
    axes.axhline(sent, color=style.INK, linewidth=0.7, linestyle=(0, (4, 2)))
    axes.annotate("sensitive bytes sent", (-0.55, sent), xytext=(0, 2), size=7,
                  textcoords="offset points")  # fmt: skip
    axes.set_ylim(0, max(sent, top) * 1.16)
    axes.set_ylabel("Leaked to the WiFi (kB a trial)")
    _ticks(axes, results.variants)
    handles = [
        Patch(facecolor=style.INK, alpha=alpha, label=label) for label, _phases, alpha in _KINDS
    ]
    canvas: Any = axes.get_figure()
    canvas.legend(handles=handles, loc="outside upper center", ncols=3)


def _draw_loot(results: Results, axes: Axes) -> None:
    for place, variant in enumerate(results.variants):
        colour, base = results.look(variant).colour, 0.0
        for metric, hatch in (("cookies_stolen", ""), ("logins_stolen", "////")):
            count = results.mean(metric, variant=variant).mean
            face = colour if not hatch else "white"
            axes.bar(place, count, bottom=base, width=0.62, color=face, edgecolor=colour,
                     hatch=hatch, linewidth=0.6)  # fmt: skip
            if count:
                noun = metric.split("_")[0]
                axes.annotate(f"{count:.3g}\n{noun}", (place, base + count / 2), ha="center",
                              va="center", size=6.5, color="white" if not hatch else "black",
                              bbox=None if not hatch else {"facecolor": "white", "pad": 0.8,
                                                           "edgecolor": "none"})  # fmt: skip
            base += count
        if not base:
            axes.annotate("0", (place, 0), xytext=(0, 3), textcoords="offset points",
                          ha="center", size=7, weight="bold")  # fmt: skip
    axes.set_ylabel("Secrets the attacker read (a trial)")
    axes.set_ylim(bottom=0)
    _ticks(axes, results.variants)


def draw_goodput(results: Results, canvas: Canvas) -> None:
    """Goodput of the video per variant against what the links could carry together."""
    from testbed.report import figures, style

    axes = canvas.subplots()
    figures.bars(axes, results, "other_goodput", scale=1e-6)
    links = float(results.parameter("wifi.bw")) + float(results.parameter("lte.bw"))
    axes.axhline(links, color=style.INK, linewidth=0.7, linestyle=(0, (4, 2)))
    axes.annotate(f"sum of the links: {links:g} Mb/s", (-0.55, links), xytext=(0, 2),
                  textcoords="offset points", size=7)  # fmt: skip
    for text in axes.texts:  # a long interval may reach up to the line
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})
    axes.set_ylim(0, links * 1.14)
    axes.set_ylabel("Goodput of the video (Mb/s)")


def draw_page_loads(results: Results, canvas: Canvas) -> None:
    """Distributions of page load times, sites in the clear and behind TLS apart."""
    from testbed.report import figures

    axes = canvas.subplots(1, 2, sharey=True)
    drawn = 0
    for each, kind, title in zip(axes, ("clear", "tls"), ("sites in the clear", "sites behind TLS"),
                                 strict=True):  # fmt: skip
        each.set_title(title)
        each.set_xlabel("Page load time (ms)")
        try:
            figures.cdf(each, results, f"page_load_time_{kind}", scale=1e3)
        except MissingData:  # with a share of 0 or 1 there are sites of one kind only
            each.text(0.5, 0.5, "none visited", ha="center", transform=each.transAxes)
            continue
        each.set_xlim(left=0)
        drawn += 1
    if not drawn:
        raise MissingData("no page was loaded")
    axes[1].set_ylabel("")
    figures.legend(axes[0] if axes[0].lines else axes[1])


def draw_switching(results: Results, canvas: Canvas) -> None:
    """Times to switch, each one a dot, with their median."""
    from testbed.report import style

    axes = canvas.subplots()
    look = results.look(TRUSTED)
    for place, (_label, metric) in enumerate(_SWITCHES):
        times = results.samples(metric, variant=TRUSTED).value * 1e3
        spread = [place + 0.2 * ((k % 5) - 2) / 2 for k in range(len(times))]
        axes.plot(times, spread, linestyle="", marker="o", markersize=2.8, color=look.colour,
                  alpha=0.7, markeredgewidth=0)  # fmt: skip
        median = float(times.median())
        axes.plot([median] * 2, [place - 0.32, place + 0.32], color=style.INK, linewidth=1.2)
        axes.annotate(f"{median:.2g} ms" if median < 10 else f"{median:.0f} ms",
                      (median, place - 0.34), xytext=(0, 1), textcoords="offset points",
                      ha="center", size=7)  # fmt: skip
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("Time to switch (ms)")
    axes.set_yticks(range(len(_SWITCHES)), [label for label, _metric in _SWITCHES])
    axes.set_ylim(len(_SWITCHES) - 0.5, -0.7)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)


def draw_stalls(results: Results, canvas: Canvas) -> None:
    """Longest stall of the sensitive stream when LTE fails in the middle of it."""
    from testbed.report import figures, style

    axes = canvas.subplots()
    figures.bars(axes, results, "stall", digits=2)
    outage = float(results.parameter("outage.duration"))
    axes.axhline(outage, color=style.INK, linewidth=0.7, linestyle=(0, (4, 2)))
    axes.annotate(f"LTE fails for {outage:g} s", (0.5, outage), xytext=(0, 2),
                  textcoords="offset points", size=7)  # fmt: skip
    axes.set_ylabel("Longest stall (s)")


def draw_rates(results: Results, canvas: Canvas) -> None:
    """Goodput against the rate of the WiFi, from the bundles of a sweep."""
    from testbed.report import figures

    axes = canvas.subplots()
    figures.against(axes, results, "other_goodput", "wifi.bw", scale=1e-6)
    axes.set_xlabel("Rate of the WiFi (Mb/s)")
    axes.set_ylabel("Goodput of the video (Mb/s)")
    figures.legend(axes)


FIGURES = (
    Figure(
        "leaks",
        "Who reads what",
        "Left: sensitive bytes in the attacker's capture at the access point, each counted once, "
        "by the phase they belong to, and how many were sent. Right: session cookies and logins "
        "it read from them.",
        draw_leaks,
        size="wide",
    ),
    Figure(
        "goodput",
        "Goodput of other traffic",
        "Mean goodput of the video, from its request to its last byte, while a chat sends its "
        "cookie; 95% intervals over repeats, each trial a dot.",
        draw_goodput,
    ),
    Figure(
        "timeline",
        "One trial of the connection manager",
        "What each radio link delivered, both ways together, stacked, every 100 ms. Shaded: "
        "the live connection is confined to LTE, from the begin of a sensitive period until its "
        "last byte is acknowledged. The strip shows when sensitive bytes are exchanged.",
        draw_timeline,
        size="wide",
    ),
    Figure(
        "page-loads",
        "Page load times",
        "From the request for the page to its last object, over all repeats.",
        draw_page_loads,
        size="wide",
    ),
    Figure(
        "switching",
        "Time to switch",
        "Inside one live connection: until sensitive bytes may be written, and from the last of "
        "them until all paths are used again. Every switch a dot; the bar is the median.",
        draw_switching,
    ),
    Figure(
        "stalls",
        "When the trusted path fails",
        "Longest gap in a steady sensitive stream while LTE is dead; 95% intervals over repeats, "
        "each trial a dot.",
        draw_stalls,
    ),
    Figure(
        "rates",
        "Goodput across WiFi rates",
        "Mean goodput of the video against the rate of the WiFi; 95% intervals over repeats.",
        draw_rates,
    ),
)
