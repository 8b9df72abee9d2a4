"""The TCP options of Multipath TCP version 1 (RFC 8684) as dataclasses: parse and build.

This is the wire format and nothing else: no connection state, no capture files, no kernel.
Keys, tokens and HMACs are computed in `keys`.  A value that parses builds the same bytes again,
reserved bits excepted (they are sent as zero).

    parse(option)        one option, from its kind byte to its end -> one of the classes below
    find(tcp_options)    every MPTCP option among the options of a TCP header
    option.build()       the option's bytes, kind and length included, not padded

Malformed bytes raise `OptionError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from testbed.mptcp._address_options import AddAddr, MpPrio, RemoveAddr
from testbed.mptcp._data_options import Dss, MpFail, MpFastclose, MpTcprst, Unassigned, dss_checksum
from testbed.mptcp._handshake_options import (
    MpCapable,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    parse_join,
)
from testbed.mptcp._wire import KIND, OptionError

__all__ = [
    "KIND",
    "AddAddr",
    "Dss",
    "MpCapable",
    "MpFail",
    "MpFastclose",
    "MpJoinAck",
    "MpJoinSyn",
    "MpJoinSynAck",
    "MpPrio",
    "MpTcprst",
    "Option",
    "OptionError",
    "RemoveAddr",
    "Unassigned",
    "dss_checksum",
    "find",
    "parse",
    "tcp_options",
]

Option = (
    MpCapable
    | MpJoinSyn
    | MpJoinSynAck
    | MpJoinAck
    | Dss
    | AddAddr
    | RemoveAddr
    | MpPrio
    | MpFail
    | MpFastclose
    | MpTcprst
    | Unassigned
)
_END, _NO_OPERATION = 0, 1

_PARSERS: dict[int, Callable[[bytes], Option]] = {
    MpCapable.subtype: MpCapable.parse,
    MpJoinSyn.subtype: parse_join,
    Dss.subtype: Dss.parse,
    AddAddr.subtype: AddAddr.parse,
    RemoveAddr.subtype: RemoveAddr.parse,
    MpPrio.subtype: MpPrio.parse,
    MpFail.subtype: MpFail.parse,
    MpFastclose.subtype: MpFastclose.parse,
    MpTcprst.subtype: MpTcprst.parse,
}


def parse(option: bytes) -> Option:
    """The MPTCP option that is exactly `option`, kind and length included."""
    if len(option) < 3 or option[0] != KIND:
        raise OptionError(f"not an MPTCP option: {option.hex() or 'no bytes'}")
    if option[1] != len(option):
        raise OptionError(f"an MPTCP option of {len(option)} bytes says it has {option[1]}")
    body = option[2:]
    parser = _PARSERS.get(body[0] >> 4)
    return Unassigned(body[0] >> 4, body[0] & 0xF, body[1:]) if parser is None else parser(body)


def tcp_options(header: bytes) -> Iterator[bytes]:
    """The options of a TCP header, one by one, padding left out (RFC 9293 3.1).

    `header` is what follows the 20 fixed bytes, up to the data offset.
    """
    offset = 0
    while offset < len(header) and header[offset] != _END:
        if header[offset] == _NO_OPERATION:
            offset += 1
            continue
        length = header[offset + 1] if offset + 1 < len(header) else 0
        if length < 2 or offset + length > len(header):
            raise OptionError(
                f"TCP option {header[offset]} at byte {offset} does not fit: {header.hex()}"
            )
        yield header[offset : offset + length]
        offset += length


def find(header: bytes) -> list[Option]:
    """Every MPTCP option among the options of a TCP header, in their order."""
    return [parse(option) for option in tcp_options(header) if option[0] == KIND]
