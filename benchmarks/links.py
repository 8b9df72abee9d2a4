"""Are links what they are told to be?  Delivered against configured, on every engine here."""

from __future__ import annotations

import json
from typing import Any

import click

from testbed.links import Engines, LinkSpec, kernel_engine
from testbed.sandbox import call

_QUICK = {"rates": (1, 20, 200), "delays": ("10ms",), "losses": (0.0, 2.0)}


@click.command()
@click.option("--quick", is_flag=True, help="Six specifications instead of the whole grid.")
@click.option("--engine", "only", type=click.Choice(["fabric", "netem"]), help="Only this engine.")
@click.option("--seconds", default=2.0, help="How long each link is saturated.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(quick: bool, only: str | None, seconds: float, as_json: bool) -> None:
    """Rate, delay and loss of links against their specification, for a grid of them."""
    from testbed.links.calibrate import grid

    specs = grid(**_QUICK) if quick else grid()
    rows: list[dict[str, Any]] = []
    for engine in [only] if only else _engines():
        for number, spec in enumerate(specs, 1):
            click.echo(f"{engine}: {number} of {len(specs)} ({spec}) ...", err=True)
            rows.append(call(_measure, engine, spec, seconds))
    click.echo(json.dumps({"rows": rows}) if as_json else _table(rows))


def _engines() -> list[str]:
    return ["fabric"] + ([] if kernel_engine.missing(netem=True, codel=False) else ["netem"])


def _measure(engine: str, spec: LinkSpec, seconds: float) -> dict[str, Any]:
    from testbed.links.calibrate import calibrate

    (row,) = calibrate(engine, [spec], seconds=seconds)
    return row.as_dict()


def _table(rows: list[dict[str, Any]]) -> str:
    return "\n".join(str(row) for row in rows)
