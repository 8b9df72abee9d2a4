"""Figures: what use cases draw with, and how a figure becomes SVG and PNG.

    band      a metric over time: mean over repeats, 95% confidence band
    bars      a metric of whole trials per variant: mean, 95% interval, each trial a dot
    against   a metric of whole trials against a parameter (many bundles: a sweep)
    cdf       the distribution of a metric's values per variant
    marks     what changed in the network meanwhile: thin lines with labels
    legend    the variants' names, outside the axes

Every helper draws the variants in the use case's order and looks.  What a figure shows is the
use case's; sizes, fonts and colours are `testbed.report.style`'s.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from testbed.errors import ExperimentError
from testbed.report import style
from testbed.report.marks import marks as marks
from testbed.run.statistics import estimate, t95
from testbed.run.usecase import Figure, MissingData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from testbed.report.results import Results

_STAMP_PT = 6.0
_STAMP_CHARACTERS_IN = 19.5  # of six-point text in an inch of width
_LEGEND_CHARACTERS_IN = 17.0  # of legend text, handles apart
_HANDLE_CHARACTERS = 6


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure as files' contents; `missing` says why there is none."""

    figure: Figure
    svg: str = ""
    png: bytes = b""
    missing: str = ""


def draw(figure: Figure, results: Results) -> Drawn:
    """Draw `figure`, stamped when the results are not certified or not complete.

    What lacks data is not drawn and says why.  Raises `ExperimentError` naming the figure where
    its drawing function fails.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    height = figure.height_in or style.HEIGHTS_IN[figure.size]
    with style.house_style(figure.id):
        canvas = Canvas(figsize=(style.WIDTHS_IN[figure.size], height))
        FigureCanvasAgg(canvas)
        try:
            figure.draw(results, canvas)
        except MissingData as error:
            return Drawn(figure=figure, missing=error.message)
        except Exception as error:
            raise ExperimentError(
                f"figure {figure.id} of {results.use_case.name} cannot be drawn: "
                f"{type(error).__name__}: {error}"
            ) from error
        _stamp(canvas, results)
        return Drawn(figure=figure, svg=_svg(canvas, figure), png=_png(canvas))


def _stamp(canvas: Canvas, results: Results) -> None:
    """Say small below the figure why it must not be believed without a second look."""
    parts = []
    if results.why_not_certified:
        parts.append(f"not certified: {results.why_not_certified}")
    if results.why_incomplete:
        parts.append(f"incomplete: {results.why_incomplete}")
    if not parts:
        return
    width, height = canvas.get_size_inches()
    lines = textwrap.wrap("; ".join(parts), int(width * _STAMP_CHARACTERS_IN))[:3]
    taken = (len(lines) * 1.25 * _STAMP_PT + 2) / 72
    canvas.set_size_inches(width, height + taken)
    share = taken / (height + taken)
    engine: Any = canvas.get_layout_engine()
    engine.set(rect=(0, share, 1, 1 - share))
    canvas.text(
        0.01, 0.008, "\n".join(lines), size=_STAMP_PT, color=style.WARNING, va="bottom", ha="left",
        linespacing=1.2,
    )  # fmt: skip


def _svg(canvas: Canvas, figure: Figure) -> str:
    buffer = io.StringIO()
    canvas.savefig(buffer, format="svg", metadata={"Date": None, "Title": figure.title})
    return buffer.getvalue()


def _png(canvas: Canvas) -> bytes:
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png")
    return buffer.getvalue()


# -- what use cases draw with --------------------------------------------------------------------


def _drawn(results: Results, asked: tuple[str, ...]) -> tuple[str, ...]:
    """The variants to draw; without any the figure would be empty axes."""
    names = asked or results.variants
    if not names:
        raise MissingData("no trial came to its end")
    return names


def band(
    axes: Axes,
    results: Results,
    metric: str,
    *,
    bin_s: float = 0.1,
    scale: float = 1.0,
    source: str | None = None,
    combine: str = "sum",
    variants: tuple[str, ...] = (),
) -> None:
    """`metric` over time per variant: mean over repeats with its 95% confidence band.

    Samples are averaged within bins of `bin_s` seconds; sources are summed (or `combine="mean"`).
    It ends where the shortest trial does.  The x axis is labelled; values are times `scale`.
    """
    for variant in _drawn(results, variants):
        curve = _binned(results, metric, variant, source, bin_s, combine) * scale
        shape, count = results.look(variant), curve.notna().sum(axis=1)
        mean, spread = curve.mean(axis=1), curve.std(axis=1)
        half = spread.fillna(0.0) * count.map(lambda n: t95(n - 1) / n**0.5 if n > 1 else 0.0)
        axes.plot(mean.index, mean, color=shape.colour, linestyle=shape.line, label=variant)
        if (count > 1).any():
            axes.fill_between(
                mean.index, mean - half, mean + half, color=shape.colour, alpha=0.2, linewidth=0
            )
    axes.set_xlabel("Time (s)")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)


def _binned(
    results: Results, metric: str, variant: str, source: str | None, bin_s: float, combine: str
) -> Any:
    """A table: one row a bin (its middle, s), one column a trial."""
    samples = results.samples(metric, variant=variant, source=source)
    samples = samples[samples.time_s >= 0]
    bins = (samples.time_s / bin_s).astype(int)
    keys = [samples.bundle, samples.repeat, samples.source, bins.rename("bin")]
    parts = samples.value.groupby(keys).mean()
    wide = parts.groupby(["bundle", "repeat", "bin"]).agg(combine).unstack(["bundle", "repeat"])
    ends = wide.apply(lambda column: column.last_valid_index())
    wide = wide.loc[: int(ends.min())]
    wide.index = (wide.index + 0.5) * bin_s
    return wide


def bars(
    axes: Axes,
    results: Results,
    metric: str,
    *,
    scale: float = 1.0,
    source: str | None = None,
    variants: tuple[str, ...] = (),
    digits: int = 3,
) -> None:
    """`metric` of whole trials per variant: mean, 95% interval, each trial a dot.

    The mean stands above its bar to `digits` significant digits.
    """
    names = _drawn(results, variants)
    top = 0.0
    for place, variant in enumerate(names):
        values = [value * scale for value in results.values(metric, variant=variant, source=source)]
        mean, shape = estimate(values), results.look(variant)
        axes.bar(place, mean.mean, width=0.62, color=style.tint(shape.colour), linewidth=0)
        axes.errorbar(
            place, mean.mean, yerr=mean.half_width, color=style.INK, capsize=2.5, linewidth=0.9
        )
        axes.plot(
            _spread(place, len(values)), values, linestyle="", marker=shape.marker, markersize=2.5,
            markerfacecolor="white", markeredgecolor=style.INK, markeredgewidth=0.5,
        )  # fmt: skip
        highest = max([mean.high, *values])
        top = max(top, highest)
        axes.annotate(
            f"{mean.mean:.{digits}g}" if mean.mean < 10**digits else f"{mean.mean:,.0f}",
            (place, highest), xytext=(0, 3), textcoords="offset points", ha="center", size=7,
        )  # fmt: skip
    axes.set_xticks(range(len(names)), [_broken(name, len(names)) for name in names])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylim(0, top * 1.15 if top > 0 else 1)


def _spread(place: int, count: int) -> list[float]:
    if count == 1:
        return [float(place)]
    return [place - 0.16 + 0.32 * k / (count - 1) for k in range(count)]


def _broken(name: str, count: int) -> str:
    """A variant's name over as many lines as `count` of them side by side need."""
    width = max(8, 44 // count)
    return "\n".join(textwrap.wrap(name.replace("_", " "), width, break_on_hyphens=True))


def against(
    axes: Axes,
    results: Results,
    metric: str,
    key: str,
    *,
    scale: float = 1.0,
    source: str | None = None,
    variants: tuple[str, ...] = (),
) -> None:
    """`metric` of whole trials against parameter `key` over many bundles (a sweep).

    Raises `MissingData` when all bundles have the same value of it.
    """
    where = results.parameter_of(key)
    if len(set(where.values())) < 2:
        raise MissingData(f"needs bundles with several values of {key} (testbed sweep makes them)")
    for variant in _drawn(results, variants):
        frame = results.frame(metric, variant=variant, source=source)
        groups = (frame.value * scale).groupby(frame.bundle.map(where))
        points = {at: estimate(list(values)) for at, values in groups}
        shape = results.look(variant)
        axes.errorbar(
            list(points), [each.mean for each in points.values()],
            yerr=[each.half_width for each in points.values()], color=shape.colour,
            linestyle=shape.line, marker=shape.marker, capsize=2, elinewidth=0.8, label=variant,
        )  # fmt: skip
    unit = results.bundles[0].run["units"].get(key, "")
    axes.set_xlabel(f"{key} ({unit})" if unit else key)
    axes.set_ylim(bottom=0)


def cdf(
    axes: Axes,
    results: Results,
    metric: str,
    *,
    scale: float = 1.0,
    source: str | None = None,
    variants: tuple[str, ...] = (),
) -> None:
    """Share of `metric`'s samples that are at most x, all repeats together, per variant."""
    for variant in _drawn(results, variants):
        values = sorted(results.samples(metric, variant=variant, source=source).value * scale)
        shares = [(k + 1) / len(values) for k in range(len(values))]
        shape = results.look(variant)
        axes.step(
            [values[0], *values], [0.0, *shares], where="post", color=shape.colour,
            linestyle=shape.line, label=variant,
        )  # fmt: skip
    axes.set_ylabel("Share of samples")
    axes.set_ylim(0, 1.02)


def legend(
    axes: Axes | Sequence[Axes], rename: Callable[[str], str] = str, *, title: str = ""
) -> None:
    """One legend above the axes, in as many columns as the figure's width holds."""
    every = [axes] if not isinstance(axes, Sequence) else axes
    handles: dict[str, Any] = {}
    for each in every:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            handles.setdefault(rename(label), handle)
    canvas: Any = every[0].get_figure()
    room = canvas.get_size_inches()[0] * _LEGEND_CHARACTERS_IN
    longest = max(map(len, handles), default=0) + _HANDLE_CHARACTERS
    columns = max(1, min(len(handles), int(room // longest)))
    canvas.legend(
        list(handles.values()), list(handles), loc="outside upper center", ncols=columns,
        title=title or None, title_fontsize=7,
    )  # fmt: skip
