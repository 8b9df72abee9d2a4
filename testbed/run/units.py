"""Numbers with units, as people type them: "1Gb/s", "200 ms", "64KB", "5%".

A unit belongs to a dimension; a value given in one unit is converted to any other unit of the
same dimension.  A lower-case b is a bit, an upper-case B a byte; k, M, G are powers of a
thousand, Ki, Mi, Gi of 1024 (IEC 80000-13), and KB is read as kB.
"""

from __future__ import annotations

import math
import re

from testbed.errors import ParameterError

_RATES = {
    prefix + name: factor * scale
    for prefix, factor in (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9))
    for name, scale in (("b/s", 1), ("bit/s", 1), ("bit", 1), ("bps", 1), ("B/s", 8))
}
_DIMENSIONS: dict[str, dict[str, float]] = {
    "rate": _RATES,
    "time": {"s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60, "h": 3600},
    "size": {
        "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9,
        "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
    },
    "ratio": {"": 1, "%": 0.01},
    "length": {"m": 1, "km": 1e3, "cm": 1e-2},
    "frequency": {"Hz": 1, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9},
    "packets": {"packets": 1, "p": 1, "pkts": 1},
}  # fmt: skip
_SHOWN = {
    "rate": "b/s, kb/s, Mb/s, Gb/s, B/s, kB/s, MB/s",
    "time": "ns, us, ms, s, min, h",
    "size": "B, kB, MB, GB, KiB, MiB, GiB",
    "ratio": "a plain ratio or %",
    "length": "cm, m, km",
    "frequency": "Hz, kHz, MHz, GHz",
    "packets": "packets",
}
_QUANTITY = re.compile(r"\s*([-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S*)\s*")


def dimension(unit: str) -> str:
    """The dimension of `unit`, or "" for a unit of its own ("users", "pages")."""
    return next((name for name, units in _DIMENSIONS.items() if unit in units), "")


def allowed(unit: str) -> str:
    """What a value meant in `unit` may be written in, for error messages."""
    if not unit:
        return "a number, or a percentage (5%)"
    shown = _SHOWN.get(dimension(unit), unit)
    return f"a number of {unit}" if shown == unit else f"a number of {unit}, or one with {shown}"


def quantity(text: str, unit: str) -> float:
    """The number in `text` in terms of `unit`; a bare number is in `unit` already.

    Raises `ParameterError` (without the parameter's name) for anything that is not a finite
    number, or whose unit is of another dimension.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ParameterError(f"{text!r} is not a number", remedy=f"write {allowed(unit)}")
    number, given = float(match[1]), match[2]
    if not math.isfinite(number):
        raise ParameterError(f"{text!r} is out of range", remedy=f"write {allowed(unit)}")
    if given in ("", unit):
        return number
    units = _DIMENSIONS.get(dimension(unit), {})
    if given not in units:
        raise ParameterError(_mismatch(text, given, unit), remedy=f"write {allowed(unit)}")
    return _scaled(number, units[given], units[unit])


def _scaled(number: float, given: float, wanted: float) -> float:
    # 12 digits: "5%" is 0.05, and not the 0.05000000000000001 a product of binary floats gives
    return float(f"{number * given / wanted:.12g}")


def _mismatch(text: str, given: str, unit: str) -> str:
    other = dimension(given)
    if other:
        return f"{text!r} is a {other}, not a {dimension(unit) or 'number of ' + unit}"
    return f"{text!r} has an unknown unit {given!r}"
