"""The options that carry a connection's data and its end: DSS, MP_FAIL, MP_FASTCLOSE, MP_TCPRST.

RFC 8684 3.3 and 3.5 to 3.7; and what has a subtype without a meaning.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

from testbed.mptcp._wire import OptionError, frame, pack, unpack


@dataclass(frozen=True, kw_only=True)
class Dss:
    """Data Sequence Signal (RFC 8684 3.3): a DATA_ACK, a mapping, the end of data.

    `data_ack` and `dsn` are sent on 64 bits where `wide_ack` and `wide_dsn` say so, else on 32.
    A mapping is `dsn`, `ssn` (subflow sequence number, relative) and `length`, all three or none.
    """

    subtype: ClassVar[int] = 2
    data_ack: int | None = None
    wide_ack: bool = False
    dsn: int | None = None
    wide_dsn: bool = False
    ssn: int | None = None
    length: int | None = None
    checksum: int | None = None
    data_fin: bool = False

    def build(self) -> bytes:
        """Bytes of the option."""
        mapping = (self.dsn, self.ssn, self.length)
        if (self.ssn is None) != (self.dsn is None) or (self.length is None) != (self.dsn is None):
            raise OptionError(f"DSS: a mapping needs dsn, ssn and length, got {mapping}")
        if self.dsn is None and self.checksum is not None:
            raise OptionError("DSS: a checksum without a mapping")
        flags = self.data_fin << 4 | self.wide_dsn << 3 | self.wide_ack << 1
        flags |= (self.dsn is not None) << 2 | (self.data_ack is not None)
        fields = (
            ("!Q" if self.wide_ack else "!I", self.data_ack),
            ("!Q" if self.wide_dsn else "!I", self.dsn),
            ("!I", self.ssn),
            ("!H", self.length),
            ("!H", self.checksum),
        )
        rest = b"".join(pack(layout, value) for layout, value in fields if value is not None)
        return frame(self.subtype, 0, pack("!B", flags) + rest)

    @classmethod
    def parse(cls, body: bytes) -> Dss:
        """The option whose bytes after kind and length are `body`."""
        flags = body[1] if len(body) > 1 else 0
        names, layout = ["data_ack"] if flags & 0x01 else [], "!BB"
        layout += ("Q" if flags & 0x02 else "I") if flags & 0x01 else ""
        if flags & 0x04:
            names += ["dsn", "ssn", "length"]
            layout += ("Q" if flags & 0x08 else "I") + "IH"
            if len(body) == struct.calcsize(layout) + 2:
                names.append("checksum")
                layout += "H"
        _first, _flags, *fields = unpack(layout, "DSS", body)
        return cls(
            wide_ack=bool(flags & 0x02),
            wide_dsn=bool(flags & 0x08),
            data_fin=bool(flags & 0x10),
            **dict(zip(names, fields, strict=True)),
        )


def dss_checksum(dsn: int, ssn: int, data: bytes) -> int:
    """The checksum of a mapping of `data` (RFC 8684 3.3.1); `dsn` on 64 bits, whatever was sent."""
    covered = pack("!QIHH", dsn, ssn, len(data), 0) + data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(covered) // 2}H", covered))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total ^ 0xFFFF)


@dataclass(frozen=True)
class MpFail:
    """MP_FAIL (RFC 8684 3.7): a checksum failed; data from `dsn` (64 bits) on is in doubt."""

    subtype: ClassVar[int] = 6
    dsn: int

    def build(self) -> bytes:
        """Bytes of the option."""
        return frame(self.subtype, 0, pack("!xQ", self.dsn))

    @classmethod
    def parse(cls, body: bytes) -> MpFail:
        """The option whose bytes after kind and length are `body`."""
        return cls(unpack("!2xQ", "MP_FAIL", body)[0])


@dataclass(frozen=True)
class MpFastclose:
    """MP_FASTCLOSE (RFC 8684 3.5): the whole connection ends now; carries the receiver's key."""

    subtype: ClassVar[int] = 7
    receiver_key: int

    def build(self) -> bytes:
        """Bytes of the option."""
        return frame(self.subtype, 0, pack("!xQ", self.receiver_key))

    @classmethod
    def parse(cls, body: bytes) -> MpFastclose:
        """The option whose bytes after kind and length are `body`."""
        return cls(unpack("!2xQ", "MP_FASTCLOSE", body)[0])


@dataclass(frozen=True, kw_only=True)
class MpTcprst:
    """MP_TCPRST (RFC 8684 3.6): why a subflow is reset; `flags` are the bits U, V, W and T."""

    subtype: ClassVar[int] = 8
    reason: int
    flags: int = 0

    @property
    def transient(self) -> bool:
        """Bit T: trying again may succeed."""
        return bool(self.flags & 1)

    def build(self) -> bytes:
        """Bytes of the option."""
        if not 0 <= self.flags < 16:
            raise OptionError(f"MP_TCPRST: flags {self.flags} do not fit four bits")
        return frame(self.subtype, self.flags, pack("!B", self.reason))

    @classmethod
    def parse(cls, body: bytes) -> MpTcprst:
        """The option whose bytes after kind and length are `body`."""
        first, reason = unpack("!BB", "MP_TCPRST", body)
        return cls(reason=reason, flags=first & 0xF)


@dataclass(frozen=True)
class Unassigned:
    """An option of a subtype RFC 8684 gives no meaning (9 to 14) or leaves to trials (15)."""

    subtype: int
    low: int
    rest: bytes

    def build(self) -> bytes:
        """Bytes of the option."""
        return frame(self.subtype, self.low, self.rest)
