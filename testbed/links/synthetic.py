"""Traces that nobody measured: a random walk in the manner of a cellular link, from a seed.

For tests, examples and figures; nothing is claimed about any operator's network.
"""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

from testbed.links.trace import Row, Trace


def random_walk(
    *,
    seconds: float = 30.0,
    step_s: float = 0.1,
    mean_mbps: float = 12.0,
    spread: float = 0.6,
    delay_ms: float = 30.0,
    seed: int = 1,
) -> Trace:
    """A rate whose logarithm walks at random, drawn back to its mean; delay rises as it falls.

    `spread` is the standard deviation of the logarithm in the long run (Ornstein-Uhlenbeck, with
    a memory of two seconds).
    """
    random = Random(seed)
    memory = math.exp(-step_s / 2.0)
    level, rows = 0.0, []
    for k in range(round(seconds / step_s)):
        level = level * memory + spread * math.sqrt(1 - memory**2) * random.gauss(0, 1)
        rows.append(
            Row(
                at_s=round(k * step_s, 6),
                rate_bps=round(mean_mbps * math.exp(level - spread**2 / 2), 2) * 1e6,
                delay_s=round(delay_ms * (1 + max(0.0, -level)), 1) / 1e3,
            )
        )
    return Trace(f"walk{seed}", tuple(rows), round(seconds / step_s) * step_s)


def deliveries_of(trace: Trace) -> list[int]:
    """Milliseconds at which the trace's rate has let through one more packet of 1500 bytes."""
    packet_bits, sent, found = 1514 * 8, 0.0, []
    rows = [*trace.rows[1:], Row(at_s=trace.length_s)]
    for row, following in zip(trace.rows, rows, strict=True):
        for ms in range(round(row.at_s * 1e3), round(following.at_s * 1e3)):
            sent += (row.rate_bps or 0.0) / 1e3
            while sent >= packet_bits:
                sent -= packet_bits
                found.append(ms + 1)
    return found


def write_csv(trace: Trace, path: Path) -> None:
    """Write a trace of rate and delay as CSV, saying that it is synthetic."""
    lines = [f"# synthetic: testbed.links.synthetic, {trace.name}", "time_s,rate_mbps,delay_ms"]
    for row in trace.rows:
        rate, delay = (row.rate_bps or 0) / 1e6, (row.delay_s or 0) * 1e3
        lines.append(f"{row.at_s:g},{rate:g},{delay:g}")
    path.write_text("\n".join(lines) + "\n")
