"""What a redirection is told and what it asks for: the events and commands of `machine`.

An event says what happened to one connection, a command what is to be done about it; neither
names the connection, because a machine has only one.  Whoever drives the machine carries commands
out in their order and answers `Rewrite`, `Block` and their opposites, and `Unsample`, with `Done`
or `Failed`.  `Sample` and `Inject` are answered only when they fail.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from testbed.errors import ExperimentError
from testbed.mptcp import keys as derive
from testbed.mptcp.options import AddAddr
from testbed.mptcp.redirection.segment import Segment


class Direction(Enum):
    """Which way a segment goes."""

    TO_CLIENT = "to the client"
    TO_SERVER = "to the server"

    @property
    def opposite(self) -> Direction:
        """The other way."""
        return Direction.TO_SERVER if self is Direction.TO_CLIENT else Direction.TO_CLIENT


class TearDown(Enum):
    """How the old subflow is taken out of use once the new one stands.

    `MP_PRIO` asks both ends to keep it as a backup, `RST` blocks and resets it, `BOTH` asks
    first, waits until it is drained, and resets it then, so that nothing is in flight.
    """

    RST = "rst"
    MP_PRIO = "mp_prio"
    BOTH = "both"


class Outcome(Enum):
    """How a redirection ended; all but REDIRECTED leave the connection on its old path."""

    REDIRECTED = "redirected"
    NOT_MPTCP = "not a Multipath TCP connection, or its keys are not known"
    NO_TRAFFIC = "no segment passed to take sequence numbers from"
    NO_ECHO = "the client did not echo the address"
    LIMITS = "the client echoed the address and did not join"
    REFUSED = "the join was reset"
    TIMED_OUT = "the join was not completed in time"
    CLOSED = "the connection was closed meanwhile"
    ABORTED = "aborted"
    FAILED = "a step could not be carried out"


class Join(Enum):
    """How far a join has come, as seen at the next hop (RFC 8684 3.2, figure 8)."""

    SYN = "SYN"
    SYN_ACK = "SYN/ACK"
    ACK = "third ACK"
    CONFIRMED = "fourth ACK"


class Keys(NamedTuple):
    """The keys of a connection's two ends, 64-bit integers."""

    client: int
    server: int


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """The address that the client shall join at, as if it were one of its server's.

    Without a port the client dials the port of its first subflow there.
    """

    address: str
    address_id: int
    port: int | None = None

    def option(self, keys: Keys) -> AddAddr:
        """The ADD_ADDR of it, signed as by the server (RFC 8684 3.4.1)."""
        hmac = derive.add_addr_hmac(
            keys.server,
            keys.client,
            address_id=self.address_id,
            address=self.address,
            port=self.port or 0,
        )
        return AddAddr(address_id=self.address_id, address=self.address, port=self.port, hmac=hmac)

    def echoed_by(self, option: AddAddr) -> bool:
        """Is `option` the client's echo of this?"""
        same_name = (option.address_id, option.port) == (self.address_id, self.port)
        address = ipaddress.ip_address(self.address)
        return option.echo and same_name and ipaddress.ip_address(option.address) == address


def free_address_id(used: Collection[int] = ()) -> int:
    """An address id that clashes neither with `used` nor, likely, with the server's own.

    Kernels number their endpoints from 1 up, and 0 is the first subflow's address.
    """
    for candidate in range(255, 0, -1):
        if candidate not in used:
            return candidate
    raise ExperimentError("all 255 address ids of a connection are used")


# -- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampled:
    """A segment of the old subflow passed the box, as it left.

    Addresses may differ on the two sides of a box that translates them.
    """

    direction: Direction
    segment: Segment


@dataclass(frozen=True)
class Echoed:
    """The client's echo passed; a machine that is given every segment finds out by itself."""


@dataclass(frozen=True)
class JoinSeen:
    """The client's join at the next hop has come so far."""

    stage: Join


@dataclass(frozen=True)
class Refused:
    """An RST ended the join at the next hop."""


@dataclass(frozen=True)
class Closed:
    """The old subflow or the whole connection ended."""

    reason: str


@dataclass(frozen=True)
class Abort:
    """Somebody wants the redirection undone, if that is still possible."""

    reason: str


@dataclass(frozen=True)
class Done:
    """A command was carried out."""

    command: Command


@dataclass(frozen=True)
class Failed:
    """A command could not be carried out, and left nothing behind."""

    command: Command
    reason: str


@dataclass(frozen=True)
class Tick:
    """The machine's deadline has come."""


Event = Sampled | Echoed | JoinSeen | Refused | Closed | Abort | Done | Failed | Tick

# -- commands -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Give the machine the segments of the old subflow that pass."""


@dataclass(frozen=True)
class Unsample:
    """No longer."""


@dataclass(frozen=True)
class Rewrite:
    """Let the announced address lead to the server, at the next hop."""


@dataclass(frozen=True)
class Unrewrite:
    """No longer, for joins to come.  A join that has been made may be left alone or reset."""


@dataclass(frozen=True)
class Block:
    """Stop what either end sends on the old subflow, and answer it with an RST.

    Stays when the connection was redirected: an end that missed its RST may send for minutes.
    """


@dataclass(frozen=True)
class Unblock:
    """No longer."""


@dataclass(frozen=True)
class Inject:
    """Send a segment on the old subflow, which no block must stop.

    It goes out with the Ethernet header of the last segment that was forwarded in that
    direction: a raw IP socket would have it translated once more.
    """

    direction: Direction
    segment: Segment


@dataclass(frozen=True)
class Finished:
    """The last command: nothing follows, and events are no longer listened to."""

    outcome: Outcome
    reason: str


Command = Sample | Unsample | Rewrite | Unrewrite | Block | Unblock | Inject | Finished
