"""Are links what they are told to be?  Delivered against configured, on every engine here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from benchmarks._compare import print_result, say, table
from testbed.links import LinkSpec, kernel_engine
from testbed.sandbox import call


@click.command()
@click.option("--quick", is_flag=True, help="Six specifications.")
@click.option("--grid", "whole", is_flag=True, help="All 45 specifications (minutes).")
@click.option("--engine", "only", type=click.Choice(["fabric", "netem"]), help="Only this engine.")
@click.option("--seconds", default=2.0, help="How long each link is saturated.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(quick: bool, whole: bool, only: str | None, seconds: float, as_json: bool) -> None:
    """Rate, delay and loss of links against their specification, for a grid of them."""
    from testbed.links.calibrate import grid

    specs = grid() if whole else grid((1, 10, 200), ("1ms", "50ms"), (0, 2))
    if quick:
        specs = grid((1, 20, 200), ("10ms",), (0, 2))
    engines = [only] if only else _engines()
    rows = [row for engine in engines for row in measure(engine, specs, seconds)]
    print_result({"rows": rows}, _table(rows), as_json)


def _engines() -> list[str]:
    return ["fabric"] + ([] if call(kernel_engine.missing, netem=True) else ["netem"])


def measure(engine: str, specs: list[LinkSpec], seconds: float = 2.0) -> Iterator[dict[str, Any]]:
    """A row for each of `specs` on an engine, each link in a sandbox of its own."""
    for number, spec in enumerate(specs, 1):
        say(f"{engine}: {number} of {len(specs)} ({spec}) ...")
        yield call(_measure, engine, spec, seconds)


def _measure(engine: str, spec: LinkSpec, seconds: float) -> dict[str, Any]:
    from testbed.links.calibrate import calibrate

    (row,) = calibrate(engine, [spec], seconds=seconds)
    return row.as_dict()


def _table(rows: list[dict[str, Any]]) -> str:
    return table(HEAD, [cells(row) for row in rows])


HEAD = (
    *("engine", "bw Mb/s", "delay", "loss %", "rate Mb/s", "error %"),
    *("delay error p50, p99 ms", "lost of probes (fair: 99%)"),
)


def cells(row: dict[str, Any]) -> list[object]:
    """What stands under `HEAD`."""
    rate, error = row["rate_mbps"], row["rate_error_percent"]
    return [
        row["engine"],
        row["bw"],
        row["delay"],
        row["loss"],
        None if rate is None else f"{rate:.3f}",
        None if error is None else f"{error:+.2f}",
        f"{row['delay_error_p50_ms']:.3f}, {row['delay_error_p99_ms']:.3f}",
        f"{row['lost']} of {row['probes']} ({row['lost_low']} to {row['lost_high']})",
    ]
