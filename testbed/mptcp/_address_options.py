"""The options that manage paths: ADD_ADDR, REMOVE_ADDR and MP_PRIO (RFC 8684 3.3.8 and 3.4)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import ClassVar

from testbed.mptcp._wire import OptionError, frame, pack, unpack


@dataclass(frozen=True, kw_only=True)
class AddAddr:
    """ADD_ADDR (RFC 8684 3.4.1): a further address; without an HMAC it is an echo of one."""

    subtype: ClassVar[int] = 3
    address_id: int
    address: str
    port: int | None = None
    hmac: int | None = None

    @property
    def echo(self) -> bool:
        """Bit E: this confirms that the address was heard."""
        return self.hmac is None

    def build(self) -> bytes:
        """Bytes of the option."""
        try:
            rest = pack("!B", self.address_id) + ipaddress.ip_address(self.address).packed
        except ValueError as error:
            raise OptionError(f"ADD_ADDR: {error}") from error
        rest += b"" if self.port is None else pack("!H", self.port)
        rest += b"" if self.hmac is None else pack("!Q", self.hmac)
        return frame(self.subtype, self.echo, rest)

    @classmethod
    def parse(cls, body: bytes) -> AddAddr:
        """The option whose bytes after kind and length are `body`."""
        tail = 0 if body[0] & 1 else 8
        size = {4: 4, 6: 4, 16: 16, 18: 16}.get(len(body) - 2 - tail)
        if size is None:
            raise OptionError(f"ADD_ADDR of {len(body) + 2} bytes: no form has this length")
        address, rest = body[2 : 2 + size], body[2 + size :]
        port, hmac = rest[: len(rest) - tail], rest[len(rest) - tail :]
        return cls(
            address_id=body[1],
            address=str(ipaddress.ip_address(address)),
            port=int.from_bytes(port, "big") if port else None,
            hmac=int.from_bytes(hmac, "big") if hmac else None,
        )


@dataclass(frozen=True)
class RemoveAddr:
    """REMOVE_ADDR (RFC 8684 3.4.2): addresses that are no longer there, by their ids."""

    subtype: ClassVar[int] = 4
    address_ids: tuple[int, ...]

    def build(self) -> bytes:
        """Bytes of the option."""
        if not 1 <= len(self.address_ids) <= 37:
            raise OptionError(f"REMOVE_ADDR of {len(self.address_ids)} addresses: 1 to 37 fit")
        return frame(self.subtype, 0, pack(f"!{len(self.address_ids)}B", *self.address_ids))

    @classmethod
    def parse(cls, body: bytes) -> RemoveAddr:
        """The option whose bytes after kind and length are `body`."""
        if len(body) < 2:
            raise OptionError("REMOVE_ADDR names no address")
        return cls(tuple(body[1:]))


@dataclass(frozen=True)
class MpPrio:
    """MP_PRIO (RFC 8684 3.3.8): asks the peer to use this subflow as backup, or no longer to."""

    subtype: ClassVar[int] = 5
    backup: bool

    def build(self) -> bytes:
        """Bytes of the option."""
        return frame(self.subtype, self.backup)

    @classmethod
    def parse(cls, body: bytes) -> MpPrio:
        """The option whose bytes after kind and length are `body`."""
        (first,) = unpack("!B", "MP_PRIO", body)
        return cls(bool(first & 1))
