"""Are links what they are told to be?  Delivered against configured, on every engine here."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import click

from benchmarks._compare import print_result, say, table
from testbed.links import LinkSpec, kernel_engine
from testbed.sandbox import call

_SLOW_MBPS, _AT_ONCE = 50, 2  # up to this rate a link leaves room for one more to be measured


@click.command()
@click.option("--quick", is_flag=True, help="Six specifications instead of the whole grid.")
@click.option("--engine", "only", type=click.Choice(["fabric", "netem"]), help="Only this engine.")
@click.option("--seconds", default=2.0, help="How long each link is saturated.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(quick: bool, only: str | None, seconds: float, as_json: bool) -> None:
    """Rate, delay and loss of links against their specification, for a grid of them."""
    from testbed.links.calibrate import grid

    specs = grid((1, 20, 200), ("10ms",), (0, 2)) if quick else grid()
    rows: list[dict[str, Any]] = []
    for engine in [only] if only else _engines():
        slow = [spec for spec in specs if spec.bw is not None and spec.bw <= _SLOW_MBPS]
        fast = [spec for spec in specs if spec not in slow]
        rows += _several(engine, slow, seconds, at_once=min(_AT_ONCE, os.cpu_count() or 1))
        rows += _several(engine, fast, seconds, at_once=1)
    print_result({"rows": rows}, _table(rows), as_json)


def _several(
    engine: str, specs: list[LinkSpec], seconds: float, *, at_once: int
) -> list[dict[str, Any]]:
    """A row for each specification, measured by so many processes side by side."""
    with ProcessPoolExecutor(at_once) as pool:
        waiting = [pool.submit(call, _measure, engine, spec, seconds) for spec in specs]
        rows = []
        for number, (spec, row) in enumerate(zip(specs, waiting, strict=True), 1):
            say(f"{engine}: {number} of {len(specs)} ({spec}) ...")
            rows.append(row.result())
    return rows


def _engines() -> list[str]:
    return ["fabric"] + ([] if kernel_engine.missing(netem=True, codel=False) else ["netem"])


def _measure(engine: str, spec: LinkSpec, seconds: float) -> dict[str, Any]:
    from testbed.links.calibrate import calibrate

    (row,) = calibrate(engine, [spec], seconds=seconds)
    return row.as_dict()


def _table(rows: list[dict[str, Any]]) -> str:
    head = [
        *("engine", "bw Mb/s", "delay", "loss %", "rate Mb/s", "error %"),
        *("delay error p50, p99 ms", "lost of probes (fair: 99%)"),
    ]
    return table(head, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[object]:
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
