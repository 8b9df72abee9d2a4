"""The options that open a connection and its subflows: MP_CAPABLE and the forms of MP_JOIN.

RFC 8684 3.1 and 3.2.  Keys, tokens and HMACs are computed in `keys`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from testbed.mptcp._wire import OptionError, frame, pack, unpack


@dataclass(frozen=True, kw_only=True)
class MpCapable:
    """MP_CAPABLE (RFC 8684 3.1): opens a connection; keys are 64-bit integers.

    The SYN carries no key, the SYN/ACK the sender's, the third ACK both, and the first segment
    with data its length too (and its checksum where both sides asked for checksums).
    """

    subtype: ClassVar[int] = 0
    version: int = 1
    flags: int = 0x01  # H: HMAC-SHA256
    sender_key: int | None = None
    receiver_key: int | None = None
    data_length: int | None = None
    checksum: int | None = None

    @property
    def checksum_required(self) -> bool:
        """Bit A: data sequence mappings carry checksums."""
        return bool(self.flags & 0x80)

    @property
    def deny_join_initial(self) -> bool:
        """Bit C: no joins to the address and port of the initial subflow."""
        return bool(self.flags & 0x20)

    def build(self) -> bytes:
        """Bytes of the option."""
        values = (self.sender_key, self.receiver_key, self.data_length, self.checksum)
        layouts = ("!Q", "!Q", "!H", "!H")
        given = [value is not None for value in values]
        if given != sorted(given, reverse=True):
            raise OptionError("MP_CAPABLE: a field is set while one that precedes it is not")
        rest = b"".join(
            pack(layout, value)
            for layout, value in zip(layouts, values, strict=True)
            if value is not None
        )
        if not 0 <= self.version < 16:
            raise OptionError(f"MP_CAPABLE: version {self.version} does not fit four bits")
        return frame(self.subtype, self.version, pack("!B", self.flags) + rest)

    @classmethod
    def parse(cls, body: bytes) -> MpCapable:
        """The option whose bytes after kind and length are `body`."""
        layouts = {2: "!BB", 10: "!BBQ", 18: "!BBQQ", 20: "!BBQQH", 22: "!BBQQHH"}
        first, flags, *fields = unpack(layouts.get(len(body), "!0s"), "MP_CAPABLE", body)
        names = ("sender_key", "receiver_key", "data_length", "checksum")
        return cls(version=first & 0xF, flags=flags, **dict(zip(names, fields, strict=False)))


@dataclass(frozen=True, kw_only=True)
class MpJoinSyn:
    """MP_JOIN on a SYN (RFC 8684 3.2): asks to add a subflow to the connection `token` names."""

    subtype: ClassVar[int] = 1
    token: int
    nonce: int
    address_id: int = 0
    backup: bool = False

    def build(self) -> bytes:
        """Bytes of the option."""
        rest = pack("!BII", self.address_id, self.token, self.nonce)
        return frame(self.subtype, self.backup, rest)

    @classmethod
    def parse(cls, body: bytes) -> MpJoinSyn:
        """The option whose bytes after kind and length are `body`."""
        first, address_id, token, nonce = unpack("!BBII", "MP_JOIN (SYN)", body)
        return cls(token=token, nonce=nonce, address_id=address_id, backup=bool(first & 1))


@dataclass(frozen=True, kw_only=True)
class MpJoinSynAck:
    """MP_JOIN on a SYN/ACK (RFC 8684 3.2): the leftmost 64 bits of the accepting side's HMAC."""

    subtype: ClassVar[int] = 1
    hmac: int
    nonce: int
    address_id: int = 0
    backup: bool = False

    def build(self) -> bytes:
        """Bytes of the option."""
        rest = pack("!BQI", self.address_id, self.hmac, self.nonce)
        return frame(self.subtype, self.backup, rest)

    @classmethod
    def parse(cls, body: bytes) -> MpJoinSynAck:
        """The option whose bytes after kind and length are `body`."""
        first, address_id, hmac, nonce = unpack("!BBQI", "MP_JOIN (SYN/ACK)", body)
        return cls(hmac=hmac, nonce=nonce, address_id=address_id, backup=bool(first & 1))


@dataclass(frozen=True)
class MpJoinAck:
    """MP_JOIN on the third ACK (RFC 8684 3.2): the leftmost 160 bits of the joiner's HMAC."""

    subtype: ClassVar[int] = 1
    hmac: bytes

    def build(self) -> bytes:
        """Bytes of the option."""
        if len(self.hmac) != 20:
            raise OptionError(f"MP_JOIN (ACK): HMAC of {len(self.hmac)} bytes, not 20")
        return frame(self.subtype, 0, b"\0" + self.hmac)

    @classmethod
    def parse(cls, body: bytes) -> MpJoinAck:
        """The option whose bytes after kind and length are `body`."""
        return cls(body[2:])


def parse_join(body: bytes) -> MpJoinSyn | MpJoinSynAck | MpJoinAck:
    """The form of MP_JOIN that has the length of `body`."""
    forms: dict[int, Callable[[bytes], MpJoinSyn | MpJoinSynAck | MpJoinAck]]
    forms = {10: MpJoinSyn.parse, 14: MpJoinSynAck.parse, 22: MpJoinAck.parse}
    if len(body) not in forms:
        raise OptionError(f"MP_JOIN of {len(body) + 2} bytes: lengths are 12, 16 and 24")
    return forms[len(body)](body)
