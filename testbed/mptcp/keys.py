"""What RFC 8684 derives from the keys of a connection: tokens, first sequence numbers, HMACs.

Keys are 64-bit integers, as the options carry them.  Everything is SHA-256 (MPTCP version 1).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import struct

_KEY = struct.Struct("!Q")


def token(key: int) -> int:
    """The 32 bits that name a connection: the leftmost of the key's hash (RFC 8684 3.2)."""
    return int.from_bytes(_hash(key)[:4], "big")


def idsn(key: int) -> int:
    """Initial data sequence number: the rightmost 64 bits of the key's hash (RFC 8684 3.1)."""
    return int.from_bytes(_hash(key)[-8:], "big")


def join_hmac(own_key: int, peer_key: int, own_nonce: int, peer_nonce: int) -> bytes:
    """The whole HMAC one side of a join proves itself with (RFC 8684 3.2), 32 bytes.

    "Own" is the side that sends it.  The SYN/ACK carries `synack_hmac` of it, the third ACK
    `ack_hmac`.
    """
    message = struct.pack("!II", own_nonce, peer_nonce)
    return _hmac(own_key, peer_key, message)


def synack_hmac(whole: bytes) -> int:
    """The 64 bits of a join HMAC that the SYN/ACK carries (`MpJoinSynAck.hmac`)."""
    return int.from_bytes(whole[:8], "big")


def ack_hmac(whole: bytes) -> bytes:
    """The 20 bytes of a join HMAC that the third ACK carries (`MpJoinAck.hmac`)."""
    return whole[:20]


def add_addr_hmac(
    own_key: int, peer_key: int, *, address_id: int, address: str, port: int = 0
) -> int:
    """The 64 bits that authenticate an ADD_ADDR sent by the owner of `own_key` (RFC 8684 3.4.1)."""
    packed = ipaddress.ip_address(address).packed
    message = bytes((address_id,)) + packed + struct.pack("!H", port)
    return int.from_bytes(_hmac(own_key, peer_key, message)[-8:], "big")


def _hash(key: int) -> bytes:
    return hashlib.sha256(_KEY.pack(key)).digest()


def _hmac(first: int, second: int, message: bytes) -> bytes:
    return hmac.digest(_KEY.pack(first) + _KEY.pack(second), message, "sha256")
