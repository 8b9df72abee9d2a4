"""What benchmarks share: contenders taken in turn on a machine at rest, ratios, Markdown tables.

    figures = interleaved({"ours": ours, "stock": stock}, rounds=3)
    ratio = Ratio.of(figures["stock"], figures["ours"])        # per round, then the median
    print_result(rows, table(["hosts", "ratio"], [[100, ratio]]), as_json)

A contender is run by `alone`: in a sandbox of its own, when the kernel has finished removing the
namespaces of the one before.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import click

from testbed.sandbox import call

_P = ParamSpec("_P")
_T = TypeVar("_T")

_QUIET = 0.1  # share of processor time in use that counts as a machine at rest
_PATIENCE_S = 10.0
_REMOVAL_S = 60.0


class Ratio(NamedTuple):
    """Of figures taken in the same rounds: the median of the rounds' ratios, least and most."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, above: Sequence[float], below: Sequence[float]) -> Ratio:
        """above/below, round by round; `ValueError` unless both have as many rounds."""
        each = [a / b for a, b in zip(above, below, strict=True)]
        return cls(statistics.median(each), min(each), max(each))

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{_short(self.median)}x"
        return f"{_short(self.median)}x ({_short(self.low)} to {_short(self.high)})"


def _short(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


# -- measuring -----------------------------------------------------------------------------------


def say(text: str) -> None:
    """A line of progress."""
    click.echo(text, err=True)


def alone(contender: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run in a sandbox, on a machine at rest; returns what the contender does."""
    settle()
    return call(contender, *args, **kwargs)


def interleaved(contenders: Mapping[str, Callable[[], _T]], rounds: int) -> dict[str, list[_T]]:
    """What each contender returned in each round.

    Every round runs all of them, each round beginning with the next one, so that neither the
    machine's mood nor the order favours anyone.
    """
    found: dict[str, list[_T]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            found[name].append(contenders[name]())
    return found


def settle(patience_s: float = _PATIENCE_S) -> None:
    """Wait until the kernel has removed all namespaces that are dead by now, and is at rest.

    Gives up on rest (others may be at work) after `patience_s`, 0 for no rest.
    """
    call(_await_removals)
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and busy() > _QUIET:
        pass


def _await_removals() -> None:
    """The kernel removes network namespaces in one queue, in order: wait for one of our own.

    A veth pair reaches into it; when the near end has gone, so has all that died before.
    """
    from testbed.kernel import NetworkNamespace, RtNetlink
    from testbed.kernel import rtnetlink as rt

    doomed, here = NetworkNamespace.create(), NetworkNamespace.current()
    netlink = RtNetlink()
    netlink.request(rt.new_veth(rt.VethEnd("near", 9, here.fd), rt.VethEnd("far", 9, doomed.fd)))
    doomed.close()
    deadline = time.monotonic() + _REMOVAL_S
    while "near" in os.listdir("/sys/class/net") and time.monotonic() < deadline:
        time.sleep(0.01)
    netlink.close()
    here.close()


def busy() -> float:
    """Share of processor time in use during a fifth of a second."""
    before = _processor_times()
    time.sleep(0.2)
    spent = [after - start for after, start in zip(_processor_times(), before, strict=True)]
    idle = spent[3] + spent[4]
    return 1 - idle / (sum(spent) or 1)


def _processor_times() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]


# -- showing -------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A GitHub-Markdown table; floats with three significant digits, None as a dash."""
    lines = [list(head), *([_cell(cell) for cell in row] for row in rows)]
    for line in lines:
        if len(line) != len(head):
            raise ValueError(f"{len(line)} cells under {len(head)} headings: {line}")
    first, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([first, "|" + "---|" * len(head), *rest])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return "0" if value == 0 else _short_signed(value)
    return str(value).replace("|", "\\|")


def _short_signed(value: float) -> str:
    size = abs(value)
    text = _short(size) if size >= 1 else f"{size:.3g}"
    return f"-{text}" if value < 0 else text


def print_result(facts: Any, markdown: str, as_json: bool) -> None:
    """The facts as JSON, or the table."""
    click.echo(json.dumps(facts) if as_json else markdown)
