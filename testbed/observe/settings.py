"""What is asked of an observation, as the command line gives it: checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from testbed.errors import ParameterError, TopologyError
from testbed.observe.place import interface_source
from testbed.run import units
from testbed.run.parameters import nearest

SHORTEST_S, LONGEST_S = 0.01, 10.0
_RING = re.compile(r"(\d+)\s*[x×]\s*(\S+)")
_SMALLEST_FILE_BYTES, _LARGEST_FILE_BYTES = 1_000, 2_000_000_000  # dumpcap's own limits
_MOST_FILES = 100_000


@dataclass(frozen=True, kw_only=True)
class Ring:
    """A capture keeps the last `files` files of `file_bytes` each."""

    files: int = 10
    file_bytes: int = 16_000_000

    @classmethod
    def parse(cls, text: str) -> Self:
        """A ring out of "10x16MB"; raises `ParameterError`."""
        match = _RING.fullmatch(text.strip())
        if match is None:
            raise ParameterError(f"--pcap-ring {text}", remedy="write FILESxSIZE, as in 10x16MB")
        try:
            size = units.quantity(match[2], "B")
        except ParameterError as error:
            raise ParameterError(f"--pcap-ring {error.message}", remedy=error.remedy) from None
        if not _SMALLEST_FILE_BYTES <= size <= _LARGEST_FILE_BYTES:
            raise ParameterError(f"--pcap-ring {text}", remedy="a file may have 1 kB to 2 GB")
        if not 1 <= int(match[1]) <= _MOST_FILES:
            raise ParameterError(f"--pcap-ring {text}", remedy=f"keep 1 to {_MOST_FILES} files")
        return cls(files=int(match[1]), file_bytes=round(size))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sampling interval (None: no sampling), and the interfaces to capture on.

    `pcap` names interfaces as the records do ("h1-eth0", "phone-wifi"); of each frame `snap`
    bytes are kept (0: all).
    """

    interval_s: float | None = None
    pcap: tuple[str, ...] = ()
    ring: Ring = Ring()
    snap: int = 0

    @classmethod
    def parse(
        cls, *, every: str = "", pcap: Sequence[str] = (), ring: str = "", snap: int = 0
    ) -> Self:
        """Settings out of the command line's words; raises `ParameterError`."""
        if snap < 0:
            raise ParameterError(f"--pcap-snap {snap}", remedy="give bytes, or 0 for whole frames")
        return cls(
            interval_s=_interval(every) if every else None,
            pcap=tuple(dict.fromkeys(pcap)),
            ring=Ring.parse(ring) if ring else Ring(),
            snap=snap,
        )

    @property
    def wanted(self) -> bool:
        """Is there anything to do?"""
        return self.interval_s is not None or bool(self.pcap)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The settings that `as_dict` gave."""
        return cls(**{**data, "pcap": tuple(data["pcap"]), "ring": Ring(**data["ring"])})

    def check(self, topo: Any) -> None:
        """Raise `TopologyError` where a topology has no interface that is to be captured."""
        if self.pcap and hasattr(topo, "links"):
            check_interfaces(self.pcap, list(interfaces_of(topo)))


NOT_OBSERVED: Final = Settings()


def _interval(text: str) -> float:
    try:
        seconds = units.quantity(text, "s")
    except ParameterError as error:
        raise ParameterError(f"sampling interval {error.message}", remedy=error.remedy) from None
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise ParameterError(
            f"a sampling interval of {text} is not allowed", remedy="give 10ms to 10s"
        )
    return seconds


def check_interfaces(wanted: Sequence[str], there: Sequence[str]) -> None:
    """Raise `TopologyError` naming the first of `wanted` that is not in `there`."""
    for name in wanted:
        if name not in there:
            raise TopologyError(f"there is no interface {name!r}", remedy=nearest(name, there))


def interfaces_of(topo: Any) -> Iterator[str]:
    """The interfaces that the links of a Mininet `Topo` will have, as the records call them."""
    for node1, node2, info in topo.links(withInfo=True):
        for node, number in ((node1, 1), (node2, 2)):
            if node == info.get(f"node{number}", node):
                name = info.get(f"intfName{number}") or f"{node}-eth{info[f'port{number}']}"
                yield name if topo.isSwitch(node) else interface_source(node, name)
