"""The connection tracking table of a namespace: taken, put back, emptied and followed, in bulk.

    table = ConntrackTable(namespace)
    entries = table.dump()                    # thousands of entries in some ten milliseconds
    refused = ConntrackTable(other).insert(entries)

Entries stay in the kernel's own form (`Entries`); iterate over `table.read()` for words.
What cannot be put back: counters and timestamps of entries, and TCP window tracking, which begins
anew (see `conntrack_messages`).
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum

from testbed.closing import Closing
from testbed.kernel import conntrack_entry, conntrack_messages
from testbed.kernel.conntrack_entries import MARK, TUPLE_ORIG, ZONE, Difference, Entries
from testbed.kernel.conntrack_entry import Entry, Flow, Status, Tcp, TcpState
from testbed.kernel.conntrack_messages import DELETE, GET, Requests
from testbed.kernel.namespaces import NetworkNamespace, sysctl
from testbed.kernel.nfnetlink import GENERIC, NfNetlink, message
from testbed.kernel.rtnetlink import attribute, attributes

__all__ = [
    "ConntrackTable",
    "Difference",
    "Entries",
    "Entry",
    "Event",
    "EventKind",
    "Flow",
    "Refusal",
    "Status",
    "Tcp",
    "TcpState",
]
_MARK_MASK = 21
_DELETE = 2
_EVENTS = "net.netfilter.nf_conntrack_events"


@dataclass(frozen=True)
class Refusal:
    """An entry that the kernel did not take; `errno` and what it means."""

    place: int
    errno: int

    @property
    def reason(self) -> str:
        """What the number means."""
        return os.strerror(self.errno)


class EventKind(Enum):
    """What happened to an entry (NFNLGRP_CONNTRACK_*)."""

    NEW = 1
    UPDATE = 2
    DESTROY = 3


@dataclass(frozen=True)
class Event:
    """An entry that came, changed or went."""

    kind: EventKind
    entry: Entry


class ConntrackTable(Closing):
    """Connection tracking of `namespace` (the calling thread's, where none is given)."""

    def __init__(self, namespace: NetworkNamespace | None = None) -> None:
        self._namespace = namespace
        self._netlink = NfNetlink(namespace)

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def dump(
        self, *, mark: tuple[int, int] | None = None, zone: int | None = None, family: int = 0
    ) -> Entries:
        """All entries, or those with a mark (value, mask), of a zone or of an address family.

        Choosing by zone takes Linux 6.8; an older kernel gives all zones.
        """
        body = GENERIC.pack(family, 0, 0)
        if mark is not None:
            value, mask = (struct.pack("!I", number) for number in mark)
            body += attribute(MARK, value) + attribute(_MARK_MASK, mask)
        if zone is not None:
            body += attribute(ZONE, struct.pack("!H", zone))
        return Entries.of_messages(self._netlink.dump(GET, body, purpose="connection tracking"))

    def read(self) -> list[Entry]:
        """All entries in words."""
        return list(conntrack_entry.read(self.dump()))

    def insert(self, entries: Entries | list[Entry], *, liberal: bool = True) -> list[Refusal]:
        """Make entries, with their translation; those that the kernel refused.

        `liberal`: packets outside of the tracked window are let through, which live connections
        need, as what the window was is not known here.
        """
        return self._send(conntrack_messages.insertions(_entries(entries), liberal=liberal))

    def delete(self, entries: Entries | list[Entry]) -> list[Refusal]:
        """Remove entries by their original tuples (and zones); those that were not there."""
        return self._send(conntrack_messages.deletions(_entries(entries)))

    def _send(self, requests: Requests) -> list[Refusal]:
        refused = self._netlink.each(requests.messages)
        return [Refusal(requests.places[at], number) for at, number in refused.items()]

    def flush(self) -> None:
        """Remove all entries of the namespace."""
        self._netlink.each([message(DELETE, 0, 1, GENERIC.pack(socket.AF_UNSPEC, 0, 0))])

    def __len__(self) -> int:
        """How many entries there are, by the kernel's own count."""
        with self._namespace or nullcontext():
            return int(sysctl("net.netfilter.nf_conntrack_count"))

    def tells_all(self) -> bool:
        """Does the kernel tell of all entries (see `tell_all`)?"""
        with self._namespace or nullcontext():
            return sysctl(_EVENTS) == "1"

    def events(self, *kinds: EventKind) -> Events:
        """Begin to follow what happens to entries (of `kinds`, or all)."""
        return Events(self._namespace, kinds or tuple(EventKind))


class Events:
    """A subscription; works with select, poll and asyncio, and ends with `close`.

    The kernel tells of entries that were made while somebody was subscribed in their namespace,
    or after `tell_all`, and of no others.
    """

    def __init__(self, namespace: NetworkNamespace | None, kinds: tuple[EventKind, ...]) -> None:
        self._netlink = NfNetlink(namespace)
        self._netlink.socket.setblocking(False)
        self._netlink.subscribe(*(kind.value for kind in kinds))

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._netlink.socket.fileno()

    def close(self) -> None:
        """End the subscription."""
        self._netlink.close()

    def read(self, timeout_s: float = 0.0) -> list[Event]:
        """Events that are there, waiting for the first up to `timeout_s`.

        Raises `KernelError` (ENOBUFS) when there were more than the socket holds: dump then.
        """
        select.select([self], [], [], timeout_s)
        return list(self._events())

    def _events(self) -> Iterator[Event]:
        for kind, flags, body in self._messages():
            what = EventKind.DESTROY if kind & 0xFF == _DELETE else _new_or_update(flags)
            for entry in conntrack_entry.read(Entries.of_messages([message(kind, 0, 0, body)])):
                yield Event(what, entry)

    def difference(self) -> Difference:
        """What has happened since the last reading, all told: entries as they are now, and gone.

        Raises `KernelError` as `read` does.
        """
        latest: dict[object, tuple[int, bytes]] = {}  # by address family, tuple and zone
        for kind, _flags, body in self._messages():
            about = attributes(body[GENERIC.size :])
            latest[body[0], about.get(TUPLE_ORIG), about.get(ZONE)] = kind, body
        told = [(kind & 0xFF == _DELETE, message(kind, 0, 0, b)) for kind, b in latest.values()]
        changed, gone = (
            [each for ended, each in told if ended is wanted] for wanted in (False, True)
        )
        return Difference(Entries.of_messages(changed), Entries.of_messages(gone))

    def _messages(self) -> Iterator[tuple[int, int, bytes]]:
        while messages := self._netlink.received():
            yield from messages


def tell_all(namespace: NetworkNamespace) -> None:
    """Have the kernel tell of all entries that are made in `namespace` from now on.

    Nothing is told where nobody follows; without this, entries are not followed that were made
    before somebody did.  A kernel that has not loaded connection tracking yet is left alone.
    """
    with namespace:
        if os.path.exists("/proc/sys/" + _EVENTS.replace(".", "/")):
            sysctl(_EVENTS, 1)


def _new_or_update(flags: int) -> EventKind:
    return EventKind.NEW if flags else EventKind.UPDATE  # NLM_F_CREATE | NLM_F_EXCL


def _entries(entries: Entries | list[Entry]) -> Entries:
    return conntrack_entry.of(entries) if isinstance(entries, list) else entries
