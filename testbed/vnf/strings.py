"""Rules of nftables that search packets for a text: xt_string, which nft(8) has no words for.

They are put before the rules of a chain that is there already, by one transaction.

Layouts: linux/netfilter/nf_tables.h, nf_tables_compat.h, xt_string.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

from testbed.errors import FeatureError, KernelError
from testbed.kernel import NetworkNamespace
from testbed.kernel.genetlink import nested
from testbed.kernel.rtnetlink import attribute, split
from testbed.vnf.elements import StringRule

_NETLINK_NETFILTER = 12
_BATCH_BEGIN, _BATCH_END, _SUBSYSTEM = 16, 17, 10
_NEW_RULE = _SUBSYSTEM << 8 | 6
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
_FAMILIES = {"inet": 1, "ip": 2, "ip6": 10}
_HEADER, _NFGEN = struct.Struct("=IHHII"), struct.Struct("=BBH")
_NFT_GOTO = -4 & 0xFFFFFFFF
_STRING = struct.Struct("=HH16s128sBBxxQ")
_IGNORE_CASE = 2
_WHOLE_PACKET = 0xFFFF
_ENOENT = 2


def add(namespace: NetworkNamespace, family: str, table: str, rules: Sequence[StringRule]) -> None:
    """Put `rules` before those that their chains have, the first of them first.

    Raises `FeatureError` where the kernel has no xt_string.
    """
    if not rules:
        return
    messages = [_rule(_FAMILIES[family], table, rule) for rule in reversed(rules)]
    with namespace:
        link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    with link:
        link.bind((0, 0))
        frames = [_frame(_BATCH_BEGIN, 0, _REQUEST, _NFGEN.pack(0, 0, socket.htons(_SUBSYSTEM)))]
        frames += [
            _frame(_NEW_RULE, number, _REQUEST | _ACK | _CREATE, message)
            for number, message in enumerate(messages, 1)
        ]
        end = _NFGEN.pack(0, 0, socket.htons(_SUBSYSTEM))
        link.send(b"".join([*frames, _frame(_BATCH_END, 0, _REQUEST, end)]))
        _await(link, len(messages))


def _await(link: socket.socket, answers: int) -> None:
    while answers:
        for _kind, sequence, body in split(link.recv(1 << 16)):
            number = -struct.unpack_from("=i", body)[0]
            if number == _ENOENT:
                raise FeatureError(
                    "this kernel cannot search packets for a text (xt_string)",
                    remedy="it takes CONFIG_NETFILTER_XT_MATCH_STRING and CONFIG_NFT_COMPAT",
                )
            if number:
                raise KernelError(number, f"a rule that searches packets: {os.strerror(number)}")
            answers -= sequence > 0


def _frame(kind: int, sequence: int, flags: int, payload: bytes) -> bytes:
    return _HEADER.pack(16 + len(payload), kind, flags, sequence, 0) + payload


def _rule(family: int, table: str, rule: StringRule) -> bytes:
    match = attribute(1, "string") + attribute(2, struct.pack("!I", 1)) + attribute(3, _info(rule))
    verdict = attribute(1, struct.pack("!I", _NFT_GOTO)) + attribute(2, rule.goto)
    jump = attribute(1, struct.pack("!I", 0)) + nested(2, nested(2, verdict))
    expressions = _expression("match", match) + _expression("immediate", jump)
    return (
        _NFGEN.pack(family, 0, 0)
        + attribute(1, table)
        + attribute(2, rule.chain)
        + nested(4, expressions)
    )


def _expression(name: str, data: bytes) -> bytes:
    return nested(1, attribute(1, name) + nested(2, data))


def _info(rule: StringRule) -> bytes:
    flags = _IGNORE_CASE if rule.ignore_case else 0
    return _STRING.pack(0, _WHOLE_PACKET, b"bm", rule.pattern, len(rule.pattern), flags, 0)
