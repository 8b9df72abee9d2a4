"""Which packets reach Python: programs that the kernel runs on every frame of a box.

`handshakes` lets through what opens, joins and ends connections, a handful of packets for each,
however many bytes it carries.  `segments` lets through all headers of some flows, which is meant
for the short time in which they are redirected.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from testbed.kernel.socket_filter import MARK, PACKET_KIND, PACKET_OUTGOING, Program

HEADERS = 14 + 60 + 60
"""Bytes of the longest Ethernet, IP and TCP headers together."""

_IPV4, _IPV6, _TCP = 0x0800, 0x86DD, 6
_IP = 14  # where the IP header begins; X counts the TCP header from there
_FIN_SYN_RST = 0x07
_MPTCP = 30
_OPTIONS = 8  # options of one header that are looked at, no-operations counted
_BLOCK = 16  # ports between two comparisons that skip a block


def handshakes(mark: int) -> Program:
    """Segments with SYN, FIN or RST, with MP_CAPABLE or MP_JOIN, or with bits of `mark` set.

    Options are walked as RFC 9293 has them, whatever order a stack gives them.
    """
    program = _tcp(Program())
    program.add("ld", MARK).jump("jset", mark, yes="accept")
    program.add("ldb_x", _IP + 13).jump("jset", _FIN_SYN_RST, yes="accept")
    program.add("ldb_x", _IP + 12).add("and", 0xF0).add("rsh", 2).add("add_x")
    program.add("st_scratch", 0)  # where the options end
    program.add("txa").add("add", 20).add("tax")
    for number in range(_OPTIONS):
        _option(program, number)
    program.jump("ja", yes="drop")
    program.label("mptcp").add("ldb_x", _IP + 2)
    program.jump("jset", 0xE0, yes="drop")  # other subtypes than 0 and 1
    program.label("accept").add("ret", HEADERS)
    return program.label("drop").add("ret", 0)


def _option(program: Program, number: int) -> None:
    """Look at the option at X: decide, or move X behind it."""
    later = f"option{number + 1}"
    program.label(f"option{number}").add("ld_scratch", 0).jump("jgt_x", no="drop")
    program.add("ldb_x", _IP).jump("jeq", _MPTCP, yes="mptcp").jump("jeq", 0, yes="drop")
    program.jump("jeq", 1, no=f"long{number}")
    program.add("txa").add("add", 1).add("tax").jump("ja", yes=later)
    program.label(f"long{number}").add("ldb_x", _IP + 1).jump("jge", 2, no="drop")
    program.add("add_x").add("tax").label(later)


def segments(
    sources: Collection[int], destinations: Collection[int], kind: int = PACKET_OUTGOING
) -> Program:
    """Headers of TCP segments that leave the box from or to one of these ports.

    `kind` says otherwise than leaving.
    """
    program = Program()
    program.add("ld", PACKET_KIND).jump("jeq", kind, yes="leaving")
    program.add("ret", 0).label("leaving")
    _tcp(program)
    for place, ports in ((_IP, sources), (_IP + 2, destinations)):
        if ports:
            program.add("ldh_x", place)
        for block in _blocks(sorted(ports)):
            _any_of(program, block, f"{place}.{block[0]}")
    return program.add("ret", 0)


def _blocks(ports: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ports), _BLOCK):
        yield ports[start : start + _BLOCK]


def _any_of(program: Program, ports: Sequence[int], name: str) -> None:
    """Accept where A is one of these ascending ports; else go on behind."""
    program.jump("jgt", ports[-1], yes=f"after{name}")
    for port in ports:
        program.jump("jeq", port, yes=f"accept{name}")
    program.jump("ja", yes=f"after{name}")
    program.label(f"accept{name}").add("ret", HEADERS).label(f"after{name}")


def _tcp(program: Program) -> Program:
    """Go on with X at the TCP header, counted from the IP header; drop what is not TCP."""
    program.add("ldh", 12).jump("jeq", _IPV4, yes="v4").jump("jeq", _IPV6, no="other")
    program.add("ldb", _IP + 6).jump("jeq", _TCP, no="other").add("ldx", 40).jump("ja", yes="tcp")
    program.label("v4").add("ldb", _IP + 9).jump("jeq", _TCP, no="other")
    program.add("ldh", _IP + 6).jump("jset", 0x1FFF, yes="other")  # a later fragment
    program.add("ldx_header", _IP).jump("ja", yes="tcp")
    return program.label("other").add("ret", 0).label("tcp")
