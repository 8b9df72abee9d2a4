"""What the topologies here share: link options, and checks of counts."""

from __future__ import annotations

from typing import Any

from testbed.errors import TopologyError


def options(
    bw: float | None, delay: str | float | None = None, loss: float | None = None, **more: Any
) -> dict[str, Any]:
    """Link parameters, those that are None left out (a link without any is not shaped)."""
    given = {"bw": bw, "delay": delay, "loss": loss, **more}
    return {key: value for key, value in given.items() if value is not None}


def at_least(least: int, **counts: int) -> None:
    """Raise `TopologyError` unless every count is an integer of at least `least`."""
    for name, value in counts.items():
        if not isinstance(value, int) or value < least:
            raise TopologyError(f"{name}={value!r}", remedy=f"give an integer, {least} or more")
