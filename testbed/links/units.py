"""Quantities as Mininet's users write them, to SI units and back: times, sizes, packet counts.

Numbers without a unit keep Mininet's meaning (milliseconds for a time, packets for a queue).
Errors are `ParameterError`; the caller names the field.
"""

from __future__ import annotations

import math
import re

from testbed.errors import ParameterError

TIMES = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
SIZES = {"B": 1, "KB": 1000, "MB": 1_000_000, "KiB": 1024, "MiB": 1 << 20}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:e-?[0-9]+)?|\.[0-9]+)\s*([A-Za-z]*)\s*")


def split(text: str) -> tuple[float, str] | None:
    """Number and unit of `text` ("10ms" gives 10.0 and "ms"); None where it is not that."""
    match = _QUANTITY.fullmatch(text)
    return (float(match[1]), match[2]) if match else None


def number(field: str, value: object, *, low: float, high: float, meaning: str) -> float:
    """`value` if it is a number from `low` to `high`; `meaning` says in the error what it is."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= float(value) <= high:  # type: ignore[arg-type]
        raise ParameterError(f"{field} is {value!r}", remedy=f"give {meaning}")
    return float(value)  # type: ignore[arg-type]


def seconds(field: str, value: str | float) -> float:
    """A time in seconds from "10ms", "1s", "50us" or, as Mininet has it, a number of ms."""
    quantity = split(value) if isinstance(value, str) else (value, "ms")
    bad = isinstance(value, bool) or quantity is None or quantity[1] not in {*TIMES, ""}
    if bad or quantity is None or not 0 <= quantity[0] < math.inf:
        raise ParameterError(
            f"{field} is {value!r}", remedy='give a time such as "10ms", "1s", "50us" or 10 (ms)'
        )
    return quantity[0] * TIMES[quantity[1] or "ms"]


def time_text(value_s: float) -> str:
    """A time in the unit that reads best: 0.01 is "10ms"."""
    for unit in ("s", "ms", "us"):
        if value_s >= TIMES[unit]:
            return f"{value_s / TIMES[unit]:.12g}{unit}"
    return f"{value_s * 1e9:.12g}ns" if value_s else "0ms"
