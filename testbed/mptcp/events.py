"""What the path manager tells: connections and subflows that come and go, in a namespace.

While an `EventMonitor` is open the kernel also accepts joins to connections under the userspace
path manager; without one it refuses them.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum

from testbed.closing import Closing
from testbed.errors import ExperimentError
from testbed.kernel import GenericNetlink, NetworkNamespace
from testbed.kernel.genetlink import Reply
from testbed.kernel.rtnetlink import attributes
from testbed.mptcp.counters import Address
from testbed.mptcp.path_manager import FAMILY

_TOKEN, _LOCAL_ID, _REMOTE_ID = 1, 3, 4
_SOURCE4, _SOURCE6, _DESTINATION4, _DESTINATION6, _SOURCE_PORT, _DESTINATION_PORT = range(5, 11)
_BACKUP, _ERROR, _FLAGS, _INTERFACE = 11, 12, 13, 15
_RESET_REASON, _RESET_FLAGS, _SERVER_SIDE = 16, 17, 18
_FLAG_SERVER_SIDE = 2
_RECEIVE_BUFFER = 1 << 20


class EventKind(Enum):
    """Kinds of events (enum mptcp_event_type)."""

    CREATED = 1
    ESTABLISHED = 2
    CLOSED = 3
    ANNOUNCED = 6
    REMOVED = 7
    SUB_ESTABLISHED = 10
    SUB_CLOSED = 11
    SUB_PRIORITY = 13
    LISTENER_CREATED = 15
    LISTENER_CLOSED = 16


_KNOWN = {kind.value for kind in EventKind}  # a newer kernel may tell of more


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event; a field the kernel did not send is None.  `time_s` is CLOCK_MONOTONIC."""

    kind: EventKind
    time_s: float
    token: int | None = None
    local: Address | None = None
    remote: Address | None = None
    local_id: int | None = None
    remote_id: int | None = None
    backup: bool | None = None
    error: int | None = None
    flags: int | None = None
    interface: int | None = None
    reset_reason: int | None = None
    reset_flags: int | None = None
    server_side: bool | None = None


class EventMonitor(Closing):
    """A subscription to the events of one namespace; works with select, poll and asyncio.

    Iterating waits for events for ever; `read` takes what is there.
    """

    def __init__(self, namespace: NetworkNamespace | None = None) -> None:
        with namespace or nullcontext():
            self._netlink = GenericNetlink(FAMILY)
        self._netlink.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._netlink.socket.setblocking(False)
        self._netlink.subscribe("mptcp_pm_events")
        self._waiting: list[Event] = []

    def close(self) -> None:
        """End the subscription."""
        self._netlink.close()

    def fileno(self) -> int:
        """Descriptor that is readable when events wait."""
        return self._netlink.socket.fileno()

    def read(self) -> list[Event]:
        """Events that wait; does not block.  `ExperimentError` where the kernel dropped some."""
        found, self._waiting = self._waiting, []
        while True:
            try:
                replies = self._netlink.received()
            except BlockingIOError:
                return found
            except OSError as error:
                raise ExperimentError(
                    f"MPTCP events were lost ({error.strerror})", remedy="read them more often"
                ) from error
            now = time.monotonic()
            found += [decode(reply, now) for reply in replies if reply.command in _KNOWN]

    def __iter__(self) -> Iterator[Event]:
        while True:
            select.select([self], [], [])
            yield from self.read()

    def wait(
        self,
        kind: EventKind,
        match: Callable[[Event], bool] = lambda _event: True,
        *,
        timeout_s: float = 5.0,
    ) -> Event:
        """The next event of `kind` that matches; those before it are dropped, later ones kept.

        Raises `ExperimentError` when none came in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            events = self.read()
            for position, event in enumerate(events):
                if event.kind is kind and match(event):
                    self._waiting = events[position + 1 :]
                    return event
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise ExperimentError(f"no MPTCP event {kind.name} within {timeout_s:g} s")
            select.select([self], [], [], left_s)


def decode(message: Reply, time_s: float) -> Event:
    """An event from its netlink message."""
    found = attributes(message.attributes)
    flags = _number(found, _FLAGS, "=H")
    return Event(
        kind=EventKind(message.command),
        time_s=time_s,
        token=_number(found, _TOKEN, "=I"),
        local=_address(found, (_SOURCE4, _SOURCE6), _SOURCE_PORT),
        remote=_address(found, (_DESTINATION4, _DESTINATION6), _DESTINATION_PORT),
        local_id=_number(found, _LOCAL_ID, "=B"),
        remote_id=_number(found, _REMOTE_ID, "=B"),
        backup=bool(found[_BACKUP][0]) if _BACKUP in found else None,
        error=_number(found, _ERROR, "=B"),
        flags=flags,
        interface=_number(found, _INTERFACE, "=i"),
        reset_reason=_number(found, _RESET_REASON, "=I"),
        reset_flags=_number(found, _RESET_FLAGS, "=I"),
        server_side=_server_side(found, flags),
    )


def _server_side(found: dict[int, bytes], flags: int | None) -> bool | None:
    if _SERVER_SIDE in found:
        return bool(found[_SERVER_SIDE][0])
    return None if flags is None else bool(flags & _FLAG_SERVER_SIDE)


def _number(found: dict[int, bytes], kind: int, layout: str) -> int | None:
    return int(struct.unpack_from(layout, found[kind])[0]) if kind in found else None


def _address(found: dict[int, bytes], kinds: tuple[int, int], port: int) -> Address | None:
    for kind in kinds:
        if kind in found:
            ip = ipaddress.ip_address(found[kind])
            mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
            return Address(str(mapped or ip), _number(found, port, "!H") or 0)
    return None
