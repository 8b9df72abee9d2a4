"""How a guest is to be moved, and what QEMU is told for it.  Nothing here talks to QEMU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from testbed.errors import ParameterError

Method = Literal["pre-copy", "post-copy"]
Compression = Literal["zstd", "zlib", "xbzrle"]

_MULTIFD = ("zstd", "zlib")  # compression that multifd does
_UNLIMITED = 1 << 40  # bytes a second: the network is the limit, not QEMU


@dataclass(frozen=True, kw_only=True)
class MigrationOptions:
    """What is asked of a live migration.

    `method`: pre-copy sends pages that are written meanwhile again, and stops the guest when what
    is left takes `downtime_limit_s`; post-copy sends `passes_before_post_copy` passes like this,
    then lets the guest go on at the target, which fetches what it lacks.  `auto_converge` slows a
    guest down that writes faster than pages can be sent.

    `compression`: zstd or zlib of pages, or xbzrle, differences to what was sent before (for
    guests that change little of a page).  `streams` is the number of connections that carry pages;
    zstd, zlib and several streams are QEMU's multifd, for which QEMU makes the connections itself.
    `mptcp` makes them Multipath TCP: subflows are up to limits and endpoints of the namespaces.
    `congestion` is their congestion control (not of MPTCP's).  `bandwidth` is a limit in bit/s.

    A migration fails when nothing gets through for `stall_limit_s`, or when it is not done after
    `limit_s`.  Raises `ParameterError` where these contradict each other.
    """

    method: Method = "pre-copy"
    downtime_limit_s: float = 0.3
    bandwidth: float | None = None
    auto_converge: bool = False
    compression: Compression | None = None
    streams: int = 1
    mptcp: bool = False
    congestion: str = "cubic"
    passes_before_post_copy: int = 1
    stall_limit_s: float = 20.0
    limit_s: float = 300.0

    def __post_init__(self) -> None:
        if self.method not in ("pre-copy", "post-copy"):
            raise ParameterError(f"method {self.method!r}", remedy="pre-copy or post-copy")
        if self.compression not in (None, "zstd", "zlib", "xbzrle"):
            raise ParameterError(
                f"compression {self.compression!r}", remedy="zstd, zlib, xbzrle or None"
            )
        if not 1 <= self.streams <= 16:
            raise ParameterError(f"{self.streams} streams", remedy="1 to 16")
        if self.downtime_limit_s <= 0 or (self.bandwidth is not None and self.bandwidth <= 0):
            raise ParameterError("a limit of nothing", remedy="a downtime and bandwidth above 0")
        if self.multifd and self.method == "post-copy":
            raise ParameterError(
                "post-copy with several streams or page compression",
                remedy="QEMU combines post-copy with one stream and xbzrle only",
            )

    @property
    def multifd(self) -> bool:
        """Do connections beside the main one carry pages?"""
        return self.streams > 1 or self.compression in _MULTIFD

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return self.streams + 1 if self.multifd else 1

    def capabilities(self) -> list[dict[str, Any]]:
        """For `migrate-set-capabilities` at both ends: all, since QEMU remembers the last ones."""
        wanted = {
            "events": True,
            # the source is done only when the target says that it has all
            "return-path": True,
            "auto-converge": self.auto_converge,
            "xbzrle": self.compression == "xbzrle",
            "multifd": self.multifd,
            "postcopy-ram": self.method == "post-copy",
        }
        return [{"capability": name, "state": state} for name, state in wanted.items()]

    def parameters(self) -> dict[str, Any]:
        """For `migrate-set-parameters` at both ends."""
        rate = _UNLIMITED if self.bandwidth is None else round(self.bandwidth / 8)
        return {
            "downtime-limit": max(round(self.downtime_limit_s * 1000), 1),
            "max-bandwidth": rate,
            "max-postcopy-bandwidth": rate,
            "multifd-channels": self.streams,
            "multifd-compression": self.compression
            if self.multifd and self.compression
            else "none",
        }
