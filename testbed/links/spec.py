"""What one direction of a link does to packets: `LinkSpec`, in users' units, and its SI view.

One specification has one meaning, whichever engine carries it out.  In this order a packet

1. waits in the queue, or is dropped there (`queue`, `aqm`),
2. is serialised at `bw`, its Ethernet header counted, its frame check sequence not,
3. is lost with probability `loss`, alone or in bursts (Gilbert-Elliott, `loss_burst`),
4. travels for `delay`, give or take `jitter` (uniform), never overtaking its predecessor, unless
   `reorder` lets it skip the delay.

How an engine does this is for the other modules of this room; which engine it is, for `Engines`.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any, Literal

from testbed.errors import ParameterError
from testbed.links import units

FULL_FRAME = 1514
"""Bytes of a full-size Ethernet frame without its frame check sequence."""

_LEAST_FRAMES = 10  # a queue given as a time holds at least this many full frames
_AQMS = ("droptail", "codel")
_LARGEST_BW = 1_000_000.0  # Mb/s
_LONGEST_S = 3600.0
_IMPAIRING = ("delay", "jitter", "loss", "loss_burst", "reorder")


@dataclasses.dataclass(frozen=True)
class LinkSpec:
    """One direction of a link, as a user writes it; every field may be left out.

    `bw` in Mb/s; `delay`, `jitter` as "10ms", "1s", "50us" or a number of milliseconds; `loss`
    and `reorder` in percent; `loss_burst`, the mean length of a burst of losses in packets (left
    out: losses are independent); `queue` as "100p" or 100 (packets), "64KB" (1 KB is 1000 bytes),
    or "100ms" (at `bw`, and at least ten full frames), not counting the frame on the wire; `aqm`
    "droptail" or "codel" (RFC 8289); `seed` fixes the sequence of losses, jitter and reordering.

    A field given as 0 differs from one left out in one way: it says that the link may be given
    that impairment later, so an engine that can do so is chosen from the start.

    Raises `ParameterError`, naming field, value and what is allowed.
    """

    bw: float | None = None
    delay: str | float | None = None
    _: dataclasses.KW_ONLY
    jitter: str | float | None = None
    loss: float | None = None
    loss_burst: float | None = None
    reorder: float | None = None
    queue: str | int | None = None
    aqm: Literal["droptail", "codel"] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        for field in ("delay", "jitter"):
            self._set(field, _time(field, getattr(self, field)))
        self._set("queue", _queue(self.queue))
        if self.aqm is not None and self.aqm not in _AQMS:
            raise ParameterError(f"aqm is {self.aqm!r}", remedy='give "droptail" or "codel"')
        self._check_together()

    def _set(self, field: str, value: object) -> None:
        object.__setattr__(self, field, value)

    def _check_numbers(self) -> None:
        for field, low, high, meaning in (
            ("bw", 1e-6, _LARGEST_BW, "a rate in Mb/s, above 0 and up to 1000000"),
            ("loss", 0, 100, "a percentage from 0 to 100"),
            ("loss_burst", 1, 1e6, "a mean number of packets, 1 or more"),
            ("reorder", 0, 100, "a percentage from 0 to 100"),
        ):
            value = getattr(self, field)
            if value is not None:
                units.number(field, value, low=low, high=high, meaning=meaning)
        if self.seed is not None and (
            isinstance(self.seed, bool) or not isinstance(self.seed, int)
        ):
            raise ParameterError(f"seed is {self.seed!r}", remedy="give an integer")

    def _check_together(self) -> None:
        if self.jitter_s > self.delay_s:
            raise ParameterError(
                f"jitter is {self.jitter!r} with a delay of {self.delay or '0ms'!r}",
                remedy="give a jitter that is at most the delay",
            )
        if self.reorder and not self.delay_s:
            raise ParameterError(
                f"reorder is {self.reorder!r} without a delay",
                remedy="give a delay: reordered packets are those that skip it",
            )
        p, _r = self.gilbert_elliott
        if p > 1:
            raise ParameterError(
                f"loss_burst is {self.loss_burst!r} with a loss of {self.loss!r}",
                remedy=f"give a loss_burst of at least {_shortest_burst(self.loss_ratio):.4g}",
            )

    # -- the SI view -----------------------------------------------------------------------------

    @cached_property
    def rate_bps(self) -> float | None:
        """Bit/s on the wire; None is unlimited."""
        return None if self.bw is None else self.bw * 1e6

    @cached_property
    def delay_s(self) -> float:
        """One-way delay in seconds."""
        return 0.0 if self.delay is None else units.seconds("delay", self.delay)

    @cached_property
    def jitter_s(self) -> float:
        """Half width of the uniform jitter in seconds."""
        return 0.0 if self.jitter is None else units.seconds("jitter", self.jitter)

    @cached_property
    def loss_ratio(self) -> float:
        """Mean share of packets lost, 0 to 1."""
        return (self.loss or 0.0) / 100

    @cached_property
    def reorder_ratio(self) -> float:
        """Share of packets that skip the delay, 0 to 1."""
        return (self.reorder or 0.0) / 100

    @cached_property
    def gilbert_elliott(self) -> tuple[float, float]:
        """(p, r): chances to enter and to leave the state in which every packet is lost.

        From the mean loss ratio and burst length L: r = 1/L, p = loss r / (1 - loss).
        Independent losses have r = 1 - loss, which makes p the loss itself.
        """
        if self.loss_ratio == 1:
            return 1.0, 0.0
        r = 1 - self.loss_ratio if self.loss_burst is None else 1 / self.loss_burst
        return self.loss_ratio * r / (1 - self.loss_ratio), r

    @cached_property
    def queue_packets(self) -> int | None:
        """Packets that may wait, where the queue is given in packets."""
        text = self.queue
        return int(text[:-1]) if isinstance(text, str) and text.endswith("p") else None

    @cached_property
    def queue_bytes(self) -> int | None:
        """Bytes that may wait; None where the queue is given in packets or nothing queues."""
        if self.rate_bps is None or self.queue_packets is not None:
            return None
        value, unit = units.split(str(self.queue or "100ms")) or (0.0, "B")
        if unit in units.SIZES:
            return int(value * units.SIZES[unit])
        return max(int(self.rate_bps * value * units.TIMES[unit] / 8), _LEAST_FRAMES * FULL_FRAME)

    @property
    def codel(self) -> bool:
        """Is the queue managed by CoDel?"""
        return self.aqm == "codel"

    @property
    def impairs(self) -> bool:
        """Does this ask, be it with a 0, for more than a rate and a queue?"""
        return any(getattr(self, field) is not None for field in _IMPAIRING)

    @property
    def shapes(self) -> bool:
        """Does this ask for anything at all?"""
        return self.impairs or self.bw is not None

    # -- values ----------------------------------------------------------------------------------

    def replace(self, **changes: Any) -> LinkSpec:
        """This specification with some fields changed; `ParameterError` for an unknown field."""
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise ParameterError(f"a link has no {name!r}", remedy=f"choose of {known}")
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """The fields that were given, in users' units; `LinkSpec(**spec.as_dict()) == spec`."""
        given = dataclasses.asdict(self)
        return {name: value for name, value in given.items() if value is not None}

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.as_dict().items()) or "unshaped"


def _time(field: str, value: str | float | None) -> str | None:
    if value is None:
        return None
    value_s = units.seconds(field, value)
    if value_s > _LONGEST_S:
        raise ParameterError(f"{field} is {value!r}", remedy="give at most an hour")
    return units.time_text(value_s)


def _queue(value: str | int | None) -> str | None:
    """The queue's one spelling: "100p", or the size or time as it was given."""
    if value is None:
        return None
    quantity = units.split(value) if isinstance(value, str) else (value, "p")
    known = {"", "p", *units.SIZES, *units.TIMES}
    bad = isinstance(value, bool) or quantity is None or quantity[1] not in known
    if bad or quantity is None or not 0 < quantity[0] < math.inf:
        raise ParameterError(
            f"queue is {value!r}", remedy='give packets (100, "100p"), "64KB" or "100ms"'
        )
    amount, unit = quantity
    if unit in ("", "p"):
        if amount != int(amount):
            raise ParameterError(f"queue is {value!r}", remedy="give a whole number of packets")
        return f"{int(amount)}p"
    return f"{amount:.12g}{unit}"


def _shortest_burst(loss_ratio: float) -> float:
    return loss_ratio / (1 - loss_ratio)
