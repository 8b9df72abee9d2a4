"""The connection manager's decisions: which interface a connection starts on, which it may join.

A machine per connection, without input or output: events of the path manager go in, joins come
out; `manager` carries them out.  What a connection is for decides:

    OTHER       nothing on it is sensitive: it starts on the preferred interface and joins all
    SENSITIVE   everything on it is: it starts on a trusted interface and joins trusted ones only
    MIXED       sensitive and other bytes in turn: it starts on a trusted interface, so that its
                keys never cross an untrusted one, and joins the others while its gates are open

Within a MIXED connection the moment-to-moment confinement is the trust gate's (`testbed.mptcp`):
it closes untrusted subflows before a sensitive byte is written, and makes them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from testbed.errors import ExperimentError
from usecases.trusted_pooling.trust import InterfaceKind

_MAX_TRIES = 3  # joins in a row that may fail on an interface before it is left alone


class NoTrustedPath(ExperimentError):
    """Sensitive bytes were to be sent and no interface may carry them: nothing is sent."""


class Purpose(Enum):
    """What a connection is for."""

    OTHER = "other"
    SENSITIVE = "sensitive"
    MIXED = "mixed"


@dataclass(frozen=True)
class Interface:
    """An interface of the terminal: its name, its address, and what is known of its kind."""

    name: str
    address: str
    kind: InterfaceKind

    @property
    def trusted(self) -> bool:
        """May sensitive bytes use it?"""
        return self.kind.trusted


@dataclass(frozen=True)
class Established:
    """The peer has confirmed the connection: subflows can be added."""


@dataclass(frozen=True)
class SubflowUp:
    """A subflow from this local address works."""

    address: str


@dataclass(frozen=True)
class SubflowLost:
    """A subflow from this local address was closed, or could not be made."""

    address: str


@dataclass(frozen=True)
class PeerOpened:
    """The peer's gate is open again: it asks for the subflows it closed."""


@dataclass(frozen=True)
class GateShut:
    """A sensitive period of this side begins."""


@dataclass(frozen=True)
class GateOpened:
    """Every sensitive byte of this side has been acknowledged."""


Event = Established | SubflowUp | SubflowLost | PeerOpened | GateShut | GateOpened


@dataclass(frozen=True)
class Join:
    """Add a subflow from this interface."""

    interface: Interface


class PathPolicy:
    """The machine of one connection; `interfaces` in order of preference.

    Raises `NoTrustedPath` when a connection that may carry sensitive bytes has no trusted
    interface: it fails closed.
    """

    def __init__(self, interfaces: Sequence[Interface], purpose: Purpose) -> None:
        self.purpose = purpose
        self._by_address = {each.address: each for each in interfaces}
        able = [each for each in interfaces if each.trusted or purpose is Purpose.OTHER]
        if not able:
            names = ", ".join(f"{each.name} ({each.kind.title})" for each in interfaces) or "none"
            raise NoTrustedPath(
                f"no trusted interface for sensitive data; interfaces: {names}",
                remedy="wait for one, or change the trust table",
            )
        self.first = able[0]
        self._established = False
        self._shut = False
        self._under_way = {self.first.address}  # subflows that exist or are being made
        self._waits_for_peer: set[str] = set()
        self._tries: Counter[str] = Counter()

    def handle(self, event: Event) -> list[Join]:
        """What to do after `event`."""
        match event:
            case Established():
                self._established = True
            case SubflowUp(address):
                self._under_way.add(address)
                self._waits_for_peer.discard(address)
                self._tries[address] = 0
            case SubflowLost(address):
                self._lost(address)
            case PeerOpened():
                self._waits_for_peer.clear()
                self._tries.clear()
            case GateShut():
                self._shut = True
            case GateOpened():
                self._shut = False
        return self._joins()

    def _lost(self, address: str) -> None:
        self._under_way.discard(address)
        self._tries[address] += 1
        interface = self._by_address.get(address)
        if self.purpose is Purpose.MIXED and interface and not interface.trusted:
            # a gate closed it: ours makes it again itself, the peer's asks for it
            self._waits_for_peer.add(address)

    def _joins(self) -> list[Join]:
        wanted = [each for each in self._by_address.values() if self._wants(each)]
        self._under_way.update(each.address for each in wanted)
        return [Join(each) for each in wanted]

    def _wants(self, interface: Interface) -> bool:
        if not self._established or interface.address in self._under_way:
            return False
        if self._tries[interface.address] >= _MAX_TRIES:
            return False
        if self.purpose is Purpose.OTHER:
            return True
        # behind a shut gate the gate itself keeps trusted paths going, and lets no other in
        shut = self._shut or self.purpose is Purpose.SENSITIVE
        return not shut and interface.address not in self._waits_for_peer
