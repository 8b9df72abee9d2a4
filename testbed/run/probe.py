"""Delay of each impaired link before a trial: one-way, per direction, on any engine.

Small Ethernet frames of a type that nothing else uses (IEEE 802's local experimental 0x88B5) are
sent out of one end's interface and awaited on the other's, both by this process, so one clock
times them.  They are addressed to the group no bridge forwards (IEEE 802.1D, 01:80:C2:00:00:0E).
The number of probes is fixed and none is repeated, so that the same seed loses the same packets
in every run.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

PROBES = 15
MAX_LINKS = 64
_FRAME_BYTES = 60
_TYPE = 0x88B5
_EVERYTHING = 3  # ETH_P_ALL
_DESTINATION = bytes.fromhex("0180c200000e")
_SPACING_S = 0.005
_GRACE_S = 0.25  # for probes to arrive beyond the longest delay configured
_STAMP = struct.Struct("!Id")


@dataclass(frozen=True, kw_only=True)
class Delay:
    """One-way delay of one direction: what was configured, serialisation included, and seen.

    `jitter_s` is the jitter that was configured then.
    """

    expected_s: float
    jitter_s: float
    seen_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """Median of the probes that arrived."""
        return median(self.seen_s)

    def within(self, error_s: float) -> bool:
        """Is the median within `error_s`, and the jitter, of what was configured?"""
        return abs(self.median_s - self.expected_s) <= error_s + self.jitter_s


@dataclass(kw_only=True)
class _Direction:
    key: tuple[str, str]
    spec: Any
    number: int
    sender: socket.socket
    receiver: socket.socket
    seen: list[float] = field(default_factory=list)

    @property
    def serialisation_s(self) -> float:
        rate: float | None = self.spec.rate_bps
        return _FRAME_BYTES * 8 / rate if rate else 0.0

    @property
    def expected_s(self) -> float:
        return float(self.spec.delay_s) + self.serialisation_s

    @property
    def spacing_s(self) -> float:
        # order is kept, so a probe on the heels of a jittered one would inherit its delay, and
        # one on the heels of another still being sent would wait for it
        jitter_s: float = self.spec.jitter_s
        return max(_SPACING_S, 2 * jitter_s, 2 * self.serialisation_s)


def probe(links: Sequence[Any]) -> dict[tuple[str, str], Delay]:
    """Delays by (wire, direction) of those `links` (of a started network) that are impaired.

    At most `MAX_LINKS` links are probed, spread evenly; a direction whose probes were all lost is
    left out.  It takes about 0.1 s and the longest delay.
    """
    impaired = [link for link in links if getattr(link, "wire", None) is not None]
    chosen = impaired[:: max(1, -(-len(impaired) // MAX_LINKS))]
    directions: list[_Direction] = []
    try:
        for link in chosen:
            directions += _open(link, len(directions))
        if directions:
            _exchange(directions)
    finally:
        for each in directions:
            each.sender.close()
            each.receiver.close()
    return {
        each.key: Delay(
            expected_s=each.expected_s, jitter_s=each.spec.jitter_s, seen_s=tuple(each.seen)
        )
        for each in directions
        if each.seen
    }


def _open(link: Any, number: int) -> list[_Direction]:
    ends = [_socket(link.intf1), _socket(link.intf2)]
    copies = [end.dup() for end in ends]
    return [
        _Direction(
            key=(link.wire.name, link.wire.directions[side]),
            spec=link.specs[side],
            number=number + side,
            sender=ends[side],
            receiver=copies[1 - side],
        )
        for side in (0, 1)
    ]


def _socket(intf: Any) -> socket.socket:
    with intf.node.netns:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # hears nothing until bound
        # what is handed on to another kernel is seen by those who look at everything
        end.bind((intf.name, _EVERYTHING if intf.node.stack_elsewhere else _TYPE))
    end.setblocking(False)
    return end


def _exchange(directions: Sequence[_Direction]) -> None:
    by_receiver: Mapping[int, _Direction] = {each.receiver.fileno(): each for each in directions}
    spacing = max(each.spacing_s for each in directions)
    with selectors.DefaultSelector() as selector:
        for each in directions:
            selector.register(each.receiver, selectors.EVENT_READ)
        for _round in range(PROBES):
            for each in directions:
                _send(each)
            _receive(selector, by_receiver, time.monotonic() + spacing, len(directions) * PROBES)
        longest = max(each.expected_s + each.spec.jitter_s for each in directions)
        until = time.monotonic() + longest + _GRACE_S
        _receive(selector, by_receiver, until, len(directions) * PROBES)


def _send(direction: _Direction) -> None:
    header = _DESTINATION + bytes(6) + struct.pack("!H", _TYPE)
    stamp = _STAMP.pack(direction.number, time.monotonic())
    direction.sender.send((header + stamp).ljust(_FRAME_BYTES, b"\0"))


def _receive(
    selector: selectors.BaseSelector,
    by_receiver: Mapping[int, _Direction],
    until: float,
    wanted: int,
) -> None:
    """Take probes until `until`, or until all of `wanted` have come."""
    while (left := until - time.monotonic()) > 0:
        if sum(len(each.seen) for each in by_receiver.values()) >= wanted:
            return
        for key, _mask in selector.select(left):
            direction = by_receiver[key.fd]
            frame = direction.receiver.recv(2048)
            arrived = time.monotonic()
            if frame[12:14] != _TYPE.to_bytes(2, "big"):
                continue
            number, sent = _STAMP.unpack_from(frame, 14)
            if number == direction.number:
                direction.seen.append(arrived - sent)
