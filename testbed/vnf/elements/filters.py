"""The expressions of IPFilter and IPClassifier: `src host 10.0.0.1 and not tcp port 80`.

Source: the Click manual, IPFilter(n) and IPClassifier(n).  Beside Click's own primitives there
are those of connection tracking: `new`, `established`, `related`, `invalid`.  `new` is a packet
that may begin a connection: of TCP only a SYN may.
"""

from __future__ import annotations

import ipaddress
import re
import socket

from testbed.vnf.elements.predicates import (
    ALWAYS,
    NEVER,
    All,
    Any,
    Condition,
    Match,
    negation,
)

_TOKEN = re.compile(r"\s*(\(|\)|&&|\|\||!=|==|<=|>=|!|=|<|>|[^\s()!=<>&|]+|&|\|)")
_V4, _V6 = Match("meta nfproto", ("ipv4",)), Match("meta nfproto", ("ipv6",))
_PROTOCOLS = {"icmp": "1", "igmp": "2", "ipip": "4", "tcp": "6", "udp": "17", "dccp": "33",
              "gre": "47", "esp": "50", "ah": "51", "icmp6": "58", "sctp": "132"}  # fmt: skip
_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg")
_ICMP = {"echo-reply": "0", "unreachable": "3", "sourcequench": "4", "redirect": "5", "echo": "8",
         "timeexceeded": "11", "parameterproblem": "12", "timestamp": "13",
         "timestamp-reply": "14"}  # fmt: skip
# name after `ip`: nft's field, largest value
_IP_FIELDS = {"vers": ("ip version", 15), "hl": ("ip hdrlength", 15), "id": ("ip id", 65535),
              "tos": ("@nh,8,8", 255), "dscp": ("ip dscp", 63), "ttl": ("ip ttl", 255),
              "len": ("ip length", 65535)}  # fmt: skip
_DIRECTIONS, _KINDS = ("src", "dst"), ("host", "net", "port")
_SYN_ONLY = Match("tcp flags & (fin|syn|rst|ack)", ("syn",))
_DEEPEST = 30


class BadPattern(Exception):
    """An expression that cannot be read: what is wrong, and the remedy."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


def condition(text: str) -> Condition:
    """What an expression says; raises `BadPattern`."""
    return _Reader(text).whole()


class _Reader:
    """A recursive descent over one expression.

    `_last` are the qualifiers of the primitive before, which a bare value takes over
    (`src host A or B`).
    """

    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._at, self._depth = 0, 0
        self._last = ("", "", "")

    def whole(self) -> Condition:
        if not self._tokens:
            raise BadPattern("an empty expression", "write all, or a condition")
        found = self._either()
        if self._at < len(self._tokens):
            raise BadPattern(f"unexpected {self._word!r}", "join conditions by and, or")
        return found

    @property
    def _word(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        word = self._word
        self._at += 1
        return word

    def _accept(self, *words: str) -> str:
        return self._take() if self._word in words and self._word else ""

    def _need(self, meaning: str) -> str:
        if not self._word or self._word in (")", "and", "or", "&&", "||"):
            raise BadPattern(f"{meaning} is missing", f"give {meaning}")
        return self._take()

    # -- logic ------------------------------------------------------------------------------

    def _either(self) -> Condition:
        parts = [self._both()]
        while self._accept("or", "||"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def _both(self) -> Condition:
        parts = [self._one()]
        while self._accept("and", "&&") or self._word not in ("", ")", "or", "||"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _one(self) -> Condition:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise BadPattern("too many parentheses", "write several patterns")
        try:
            if self._accept("not", "!"):
                return negation(self._one())
            if self._accept("("):
                found = self._either()
                if not self._accept(")"):
                    raise BadPattern("'(' is not closed", "close it with ')'")
                return found
            return self._primitive()
        finally:
            self._depth -= 1

    # -- primitives -------------------------------------------------------------------------

    def _primitive(self) -> Condition:
        word = self._word
        if self._accept("all", "any", "true", "-"):
            return ALWAYS
        if self._accept("none", "false"):
            return NEVER
        if self._accept("new", "established", "related", "invalid"):
            return _tracked(word)
        if self._accept("ip"):
            return self._ip()
        if word in _FLAGS:
            self._take()
            return _flag(word)
        return self._qualified()

    def _qualified(self) -> Condition:
        """`[src|dst [and|or dst]] [tcp|udp|...] [host|net|port|opt|type|...] VALUE`."""
        direction = self._direction()
        protocol = self._accept(*_PROTOCOLS)
        kind = self._accept(*_KINDS)
        if protocol and not kind and not direction:
            found = self._of_protocol(protocol)
            if found is not None:
                return found
        if not (direction or protocol or kind):
            if not any(self._last) or not self._is_value():
                raise BadPattern(
                    f"{self._word or 'nothing'!r} is no condition",
                    "write one such as src host 10.0.0.1, tcp dst port 80, icmp or all",
                )
            direction, protocol, kind = self._last
        if not direction and kind == "port" and self._word in _DIRECTIONS:
            direction = self._take()
        self._last = (direction, protocol, kind)
        if kind == "port" or (protocol in ("tcp", "udp") and kind == ""):
            return self._port(direction, protocol)
        return self._host(direction, kind)

    def _direction(self) -> str:
        first = self._accept(*_DIRECTIONS)
        if first and self._word in ("and", "or") and self._at + 1 < len(self._tokens):
            joint, other = self._tokens[self._at : self._at + 2]
            if other in _DIRECTIONS and other != first:
                self._at += 2
                return f"both {joint}"
        return first

    def _is_value(self) -> bool:
        return self._word[:1].isalnum() or ":" in self._word

    def _of_protocol(self, protocol: str) -> Condition | None:
        """`tcp`, `tcp opt syn`, `tcp syn`, `tcp dst port 80`, `icmp type echo`; else None."""
        proto = Match("meta l4proto", (_PROTOCOLS[protocol],))
        if protocol == "tcp" and self._accept("opt"):
            return self._tcp_flag()
        if protocol == "tcp" and self._word in _FLAGS:
            return _flag(self._take())
        if protocol == "tcp" and self._accept("win"):
            return self._compared(All((proto,)), "tcp window", 65535)
        if protocol == "icmp" and self._accept("type"):
            return self._icmp_type(proto)
        if self._word in _DIRECTIONS and protocol in ("tcp", "udp", "sctp", "dccp"):
            direction = self._direction()
            self._accept("port")
            self._last = (direction, protocol, "port")
            return self._port(direction, protocol)
        if protocol in ("tcp", "udp", "sctp", "dccp") and self._word[:1].isdigit():
            return None  # `tcp 80`
        return proto

    def _tcp_flag(self) -> Condition:
        name = self._need("a TCP flag")
        if name not in _FLAGS:
            raise BadPattern(f"{name!r} is no TCP flag", f"choose of {', '.join(_FLAGS)}")
        return _flag(name)

    def _icmp_type(self, proto: Match) -> Condition:
        name = self._need("an ICMP type")
        number = _ICMP.get(name, name)
        return All((proto, Match("@th,0,8", (_number(number, 255, "ICMP type"),))))

    def _ip(self) -> Condition:
        name = self._need("what of IP is meant")
        if name == "proto":
            word = self._need("a protocol")
            number = _PROTOCOLS.get(word) or _number(word, 255, "protocol")
            return Match("meta l4proto", (number,))
        if name in ("frag", "unfrag"):
            whole = Match("ip frag-off & 0x3fff", ("0",), negated=name == "frag")
            return All((_V4, whole))
        if name in ("ect", "ce"):
            ce = Match("ip ecn", ("3",))
            return All((_V4, ce if name == "ce" else Match("ip ecn", ("0",), negated=True)))
        if name not in _IP_FIELDS:
            raise BadPattern(
                f"ip {name[:20]} is not known", f"choose of proto, frag, {', '.join(_IP_FIELDS)}"
            )
        left, most = _IP_FIELDS[name]
        return self._compared(All((_V4,)), left, most)

    def _compared(self, before: All, left: str, most: int) -> Condition:
        """`[==|!=|<|>|<=|>=] N` about a field."""
        sign = self._accept("==", "=", "!=", "<", ">", "<=", ">=") or "=="
        number = int(_number(self._need("a number"), most, "number"))
        return All((*before.parts, _range(left, sign, number, most)))

    def _port(self, direction: str, protocol: str) -> Condition:
        sign = self._accept("==", "=", "!=", "<", ">", "<=", ">=") or "=="
        word = self._need("a port")
        if sign in ("==", "=", "!=") and "-" in word and word[0].isdigit():
            low, _, high = word.partition("-")
            values: tuple[str, ...] = (
                f"{_number(low, 65535, 'port')}-{_number(high, 65535, 'port')}",
            )
            if int(low) > int(high):
                raise BadPattern(f"ports {word}", "give the lower one first")
        else:
            values = (_service(word, protocol),)
        carriers = (_PROTOCOLS[protocol],) if protocol else ("6", "17")
        carrier = Match("meta l4proto", carriers)

        def one(side: str) -> Condition:
            left = f"th {side}"
            if sign in ("==", "=", "!="):
                return All((carrier, Match(left, values, negated=sign == "!=")))
            return All((carrier, _range(left, sign, int(values[0]), 65535)))

        return _directed(direction, one("sport"), one("dport"))

    def _host(self, direction: str, kind: str) -> Condition:
        sign = self._accept("==", "=", "!=")
        word = self._need("an address")
        address = _network(word, kind)
        if self._accept("mask"):
            address = _network(f"{word}/{self._need('a mask')}", "net")
        version = _V4 if address.version == 4 else _V6
        family = "ip" if address.version == 4 else "ip6"
        host = address.prefixlen == address.max_prefixlen
        shown = str(address.network_address) if host else str(address)

        def one(side: str) -> Condition:
            if address.prefixlen == 0:
                return version
            return All((version, Match(f"{family} {side}", (shown,))))

        found = _directed(direction, one("saddr"), one("daddr"))
        return negation(found) if sign == "!=" else found


def _directed(direction: str, source: Condition, destination: Condition) -> Condition:
    match direction:
        case "src":
            return source
        case "dst":
            return destination
        case "both and":
            return All((source, destination))
    return Any((source, destination))


def _network(word: str, kind: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(word, strict=kind == "host" and "/" in word)
    except ValueError:
        raise BadPattern(
            f"{word[:40]!r} is no address", "write one such as 10.0.0.1 or 10.0.0.0/8"
        ) from None


def _range(left: str, sign: str, number: int, most: int) -> Condition:
    match sign:
        case "<" | "<=":
            high = number - (sign == "<")
            return NEVER if high < 0 else Match(left, (f"0-{high}",))
        case ">" | ">=":
            low = number + (sign == ">")
            return NEVER if low > most else Match(left, (f"{low}-{most}",))
    return Match(left, (str(number),), negated=sign == "!=")


def _number(word: str, most: int, meaning: str) -> str:
    try:
        value = int(word, 0)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise BadPattern(f"{word[:40]!r} is no {meaning}", f"give a number from 0 to {most}")
    return str(value)


def _service(word: str, protocol: str) -> str:
    if word.isdigit():
        return _number(word, 65535, "port")
    try:
        name = {"dns": "domain"}.get(word, word)
        return str(socket.getservbyname(name, *([protocol] if protocol else [])))
    except OSError:
        raise BadPattern(f"{word[:40]!r} is no port", "give a number or a service's name") from None


def _flag(name: str) -> Condition:
    return All((Match("meta l4proto", ("6",)), Match(f"tcp flags & {name}", ("0",), negated=True)))


def _tracked(word: str) -> Condition:
    state = Match("ct state", (word,))
    if word != "new":
        return state
    return All((state, Any((Match("meta l4proto", ("6",), negated=True), _SYN_ONLY))))
