"""The figures of an observation, of any topology and any commands.

Each shows the first repeat of each variant, one panel (or column of panels) a variant, and at
most six curves: the busiest.  Only figures that have something to show are offered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from testbed.observe.series import Observed, Series, busiest, is_observed
from testbed.report import style
from testbed.report.figures import legend
from testbed.report.marks import marks
from testbed.run.usecase import Figure, MissingData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from testbed.report.results import Results

_MOST_CURVES = 6
_MOST_VARIANTS = 4
_MEASURED = ("(Mb/s)", "(kB)", "(ms)")
_ACK_BIN_S = 0.2  # acknowledgements come in clusters: over less, a rate shows when, not how many

Curves = dict[str, Series]


def observed_figures(results: Results) -> tuple[Figure, ...]:
    """The figures that these bundles' observations have something for."""
    if not is_observed(results):
        return ()
    return tuple(
        figure
        for figure, wanted in ((_LINKS, _link_bytes), (_QUEUES, _backlogs), (_TCP, _acked),
                               (_MPTCP, _paths))
        if any(wanted(each) for each in _observed(results))
    )  # fmt: skip


def _observed(results: Results) -> list[Observed]:
    found = []
    for variant in results.variants[:_MOST_VARIANTS]:
        observed = Observed(results, variant)
        if observed.events("observation"):
            found.append(observed)
    return found


# -- what there is to draw -----------------------------------------------------------------------


def _link_bytes(observed: Observed) -> Curves:
    """Bytes that came out of each direction of each link that carried any."""
    arrived = observed.all("interface.rx_bytes")
    return {
        f"{link['from']} > {link['to']}": arrived[link["to"]]
        for link in observed.about["links"]
        if link["to"] in arrived and arrived[link["to"]].growth > 0
    }


def _backlogs(observed: Observed) -> Curves:
    """Bytes waiting in each queue that ever held any."""
    found = observed.all("queue.backlog")
    return {source: series for source, series in found.items() if series.values.max() > 0}


def _acked(observed: Observed) -> Curves:
    """Bytes that each TCP socket's peer has, also those it has out of order."""
    acked, sacked = observed.all("tcp.bytes_acked"), observed.all("tcp.sacked")
    return {
        source: _sum(series, sacked[source]) if source in sacked else series
        for source, series in acked.items()
        if series.growth > 0
    }


def _sum(one: Series, two: Series) -> Series:
    import numpy

    times = numpy.union1d(one.times, two.times)
    return Series(times, one.at(times) + two.at(times))


def _paths(observed: Observed) -> dict[str, Curves]:
    """By MPTCP connection, the bytes acknowledged on each path; connections that sent, busiest
    first.
    """
    acked = _acked(observed)
    found: dict[tuple[str, int], Curves] = {}
    for event in observed.events("socket"):
        if event.get("protocol") == "subflow" and event["source"] in acked:
            curves = found.setdefault((event["node"], event["token"]), {})
            path = _path(event, observed.about["addresses"])
            series = acked[event["source"]]
            curves[path] = _sum(curves[path], series) if path in curves else series
    sent = {key: sum(each.growth for each in curves.values()) for key, curves in found.items()}
    names = {str(key): key for key in sent}
    order, _left = busiest({name: sent[key] for name, key in names.items()}, 1)
    return {name: found[names[name]] for name in order}


def _path(event: dict[str, Any], interfaces: dict[str, str]) -> str:
    local, remote = (_ip(event[end]) for end in ("local", "remote"))
    return f"{interfaces.get(local, local)} > {interfaces.get(remote, remote)}"


def _ip(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def socket_label(source: str) -> str:
    """A socket in few words: "h1:45268 > 10.0.0.2:5201"."""
    node, _space, ends = source.partition(" ")
    local, _arrow, remote = ends.partition(" > ")
    return f"{node}:{local.rpartition(':')[2]} > {remote}"


class Looks(dict[str, style.Look]):
    """What a source looks like, the same in all panels of a figure."""

    def __missing__(self, name: str) -> style.Look:
        self[name] = style.look(len(self))
        return self[name]


# -- drawing -------------------------------------------------------------------------------------


def _panels(
    results: Results, canvas: Canvas, labels: Sequence[str]
) -> list[tuple[Observed, list[Axes]]]:
    """A column of axes for each variant, one below the other for each of `labels`."""
    observed = _observed(results)
    if not observed:
        raise MissingData("nothing was observed")
    grid = canvas.subplots(len(labels), len(observed), sharex="col", sharey="row", squeeze=False)
    for row, label in enumerate(labels):
        grid[row][0].set_ylabel(label)
    columns = [[grid[row][column] for row in range(len(labels))] for column in range(len(observed))]
    return list(zip(observed, columns, strict=True))


def _finish(panels: list[tuple[Observed, list[Axes]]], note: str = "") -> None:
    """Limits, marks, the variants' names, and one legend for all panels."""
    labels = [axes.get_ylabel() for axes in panels[0][1]]
    for observed, column in panels:
        column[-1].set_xlabel("Time (s)")
        if len(panels) > 1:
            column[0].set_title(observed.variant)
        for axes, label in zip(column, labels, strict=True):
            axes.set_xlim(0, observed.end_s)
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(_ticks(label))
    legend([axes for _observed, column in panels for axes in column], title=note)
    for observed, column in panels:
        for row, axes in enumerate(column):
            marks(axes, observed.results, observed.variant, labels=row == 0)


def _ticks(label: str) -> Any:
    """Few ticks, whole ones where things are counted."""
    from matplotlib.ticker import MaxNLocator

    counted = not any(unit in label for unit in _MEASURED)
    return MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=counted)


def _note(left: int, what: str) -> str:
    return f"The {_MOST_CURVES} busiest {what}; {left} more carried data" if left else ""


def _draw_rates(
    observed: Observed,
    axes: Axes,
    curves: Curves,
    names: Sequence[str],
    looks: Looks,
    label: Callable[[str], str] = str,
    *,
    least_s: float = 0.0,
) -> None:
    for name in names:
        shape = looks[name]
        times, rates = observed.rate(curves[name], least_s=least_s)
        axes.plot(times, rates * 8e-6, color=shape.colour, linestyle=shape.line, label=label(name))


def _draw_links(results: Results, canvas: Canvas) -> None:
    panels = _panels(results, canvas, ["Throughput (Mb/s)"])
    left, looks = 0, Looks()
    for observed, (axes,) in panels:
        curves = _link_bytes(observed)
        names, more = busiest({n: c.growth for n, c in curves.items()}, _MOST_CURVES)
        _draw_rates(observed, axes, curves, names, looks)
        left = max(left, more)
    _finish(panels, _note(left, "directions"))


def _draw_queues(results: Results, canvas: Canvas) -> None:
    panels = _panels(results, canvas, ["Backlog (kB)", "Packets dropped"])
    left, looks = 0, Looks()
    for observed, (backlog, drops) in panels:
        waiting, dropped = _backlogs(observed), observed.all("queue.drops")
        peaks = {name: float(series.values.max()) for name, series in waiting.items()}
        names, more = busiest(peaks, _MOST_CURVES)
        left = max(left, more)
        for name in names:
            drawn: dict[str, Any] = {"color": looks[name].colour, "linestyle": looks[name].line}
            backlog.plot(waiting[name].times, waiting[name].values / 1e3, label=name, **drawn)
            count = dropped[name]
            drops.plot(count.times, count.values - count.values[0], **drawn)
    _finish(panels, _note(left, "queues"))


def _draw_tcp(results: Results, canvas: Canvas) -> None:
    labels = ["Goodput (Mb/s)", "cwnd (packets)", "Smoothed RTT (ms)", "Retransmissions"]
    panels = _panels(results, canvas, labels)
    left, looks = 0, Looks()
    for observed, column in panels:
        curves = _acked(observed)
        names, more = busiest({n: c.growth for n, c in curves.items()}, _MOST_CURVES)
        left = max(left, more)
        _draw_rates(observed, column[0], curves, names, looks, socket_label, least_s=_ACK_BIN_S)
        for axes, metric, scale in zip(
            column[1:], ("tcp.cwnd", "tcp.srtt", "tcp.retransmissions"), (1, 1e3, 1), strict=True
        ):
            found = observed.all(metric)
            for name in names:
                if name in found:
                    axes.plot(found[name].times, found[name].values * scale,
                              color=looks[name].colour, linestyle=looks[name].line)  # fmt: skip
    _finish(panels, _note(left, "sockets"))


def _draw_mptcp(results: Results, canvas: Canvas) -> None:
    from numpy import nan_to_num

    panels = _panels(results, canvas, ["Throughput (Mb/s)"])
    looks = Looks()
    for observed, (axes,) in panels:
        for curves in _paths(observed).values():
            names = sorted(curves)
            found = [observed.rate(curves[name], least_s=_ACK_BIN_S) for name in names]
            rates = [nan_to_num(each) * 8e-6 for _times, each in found]
            colours = [style.tint(looks[name].colour, 0.75) for name in names]
            axes.stackplot(found[0][0], rates, labels=names, colors=colours, linewidth=0)
    _finish(panels)


_LINKS = Figure(
    "observed-links",
    "Throughput of links",
    "What came out of each direction of each link, Ethernet headers counted; the busiest six of "
    "those that carried at least 1% of what the busiest did.",
    _draw_links,
    size="wide",
)
_QUEUES = Figure(
    "observed-queues",
    "Queues",
    "Bytes waiting in front of each link's rate and in the nodes' own queueing disciplines, and "
    "packets these dropped since the beginning.",
    _draw_queues,
    size="wide",
    height_in=3.6,
)
_TCP = Figure(
    "observed-tcp",
    "TCP",
    "Of each sending socket: payload that its peer has, out of order included, as means over "
    "0.2 s where the trial is long enough; congestion window; "
    "smoothed round-trip time; segments retransmitted since the beginning.",
    _draw_tcp,
    size="wide",
    height_in=6.4,
)
_MPTCP = Figure(
    "observed-mptcp",
    "Multipath TCP by path",
    "Payload acknowledged on the subflows of the busiest connection, path on path, as means over "
    "0.2 s where the trial is long enough; what was sent again on another path counts on both.",
    _draw_mptcp,
    size="wide",
)
