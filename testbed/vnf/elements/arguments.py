"""Reading an element's arguments: positional ones, `KEYWORD value`, and typed values in them."""

from __future__ import annotations

import ipaddress
import math
import re

from testbed.vnf.click.errors import ClickError, nearest
from testbed.vnf.click.graph import Argument, GraphElement

_KEYWORD = re.compile(r"([A-Z][A-Z0-9_]*)(?:\s+(.*))?", re.DOTALL)
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kMG]?)(bps|b/s|bit/s|Bps|B/s)?")
_PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Arguments:
    """An element's arguments, taken one by one; what nobody took is an error."""

    def __init__(self, element: GraphElement) -> None:
        self.element = element
        self._left = list(element.arguments)

    def rest(self) -> list[Argument]:
        """All positional arguments that are left."""
        found, self._left = self._left, []
        return found

    def next(self, meaning: str) -> Argument:
        """The next positional argument, which must be there."""
        if not self._left:
            raise self.error(None, f"{meaning} is missing", f"write {self.element.kind}({meaning})")
        return self._left.pop(0)

    def optional(self) -> Argument | None:
        """The next positional argument, if there is one that is no keyword."""
        if not self._left or _KEYWORD.fullmatch(self._left[0].text):
            return None
        return self._left.pop(0)

    def keyword(self, name: str) -> Argument | None:
        """The value of `NAME value`, with its place."""
        found = self.keywords(name)
        return found[-1] if found else None

    def keywords(self, name: str) -> list[Argument]:
        """The values of a keyword that may be repeated."""
        found, left = [], []
        for argument in self._left:
            match = _KEYWORD.fullmatch(argument.text)
            if match and match[1] == name:
                found.append(Argument((match[2] or "").strip(), argument.place))
            else:
                left.append(argument)
        self._left = left
        return found

    def ignore(self, *names: str) -> None:
        """Pass over keywords of Click that have no meaning in a kernel."""
        for name in names:
            self.keywords(name)

    def finish(self) -> None:
        """Raise `ClickError` at the first argument that nobody took."""
        if self._left:
            argument = self._left[0]
            raise self.error(
                argument, f"{argument.text[:40]!r} is one argument too many", "take it out"
            )

    def error(self, argument: Argument | None, what: str, remedy: str) -> ClickError:
        """An error of this element, at an argument or at the element."""
        place = argument.place if argument else self.element.place
        return ClickError(place, f"{self.element.kind} {self.element.name}: {what}", remedy=remedy)

    # -- values -----------------------------------------------------------------------------

    def integer(self, argument: Argument, meaning: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`, decimal or 0x..."""
        try:
            value = int(argument.text, 0)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise self.error(
                argument,
                f"{meaning} is {argument.text[:40]!r}",
                f"give a whole number from {low} to {high}",
            )
        return value

    def bandwidth(self, argument: Argument) -> float:
        """A bandwidth in bit/s; see `bandwidth`."""
        try:
            return bandwidth(argument.text)
        except ValueError as error:
            raise self.error(argument, str(error), BANDWIDTH_REMEDY) from None

    def address(self, argument: Argument) -> Address:
        """An IP address."""
        try:
            return ipaddress.ip_address(argument.text)
        except ValueError:
            raise self.error(
                argument, f"{argument.text[:40]!r} is no address", "write one such as 10.0.0.1"
            ) from None

    def choice(self, argument: Argument, meaning: str, choices: tuple[str, ...]) -> str:
        """One of several words."""
        if argument.text not in choices:
            raise self.error(
                argument,
                f"{meaning} is {argument.text[:40]!r}",
                nearest(argument.text, choices),
            )
        return argument.text


BANDWIDTH_REMEDY = "give one such as 10Mbps, 500kbps or 1000000 (bytes per second)"


def bandwidth(text: str) -> float:
    """A bandwidth in bit/s as Click writes it: "10Mbps", "1MBps", a plain number in bytes/s.

    Raises `ValueError`.
    """
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:40]!r} is no bandwidth")
    bits = float(match[1]) * _PREFIXES[match[2]] * (1 if (match[3] or "B")[0] == "b" else 8)
    if not 8 <= bits <= 1e12 or not math.isfinite(bits):
        raise ValueError(f"{text[:40]!r} is out of range")
    return bits


def unquoted(text: str) -> bytes:
    """The bytes a Click string stands for: "..." with escapes, '...', or the text itself.

    Raises `ValueError` for an escape that is none.
    """
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1].encode()
    if len(text) < 2 or not text[0] == text[-1] == '"':
        return text.encode()
    return re.sub(
        rb"\\(<[0-9A-Fa-f\s]*>|x[0-9A-Fa-f]{2}|.)", _escaped, text[1:-1].encode(), flags=re.DOTALL
    )


def _escaped(match: re.Match[bytes]) -> bytes:
    inner = match[1]
    if inner[:1] == b"<":
        return bytes.fromhex(inner[1:-1].decode())
    if inner[:1] == b"x" and len(inner) == 3:
        return bytes.fromhex(inner[1:].decode())
    return {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"0": b"\0"}.get(inner, inner)
