"""The TCP sockets and MPTCP connections of one namespace, from the first sight of each to its end.

A socket is known by its cookie.  One that is as it was costs a comparison.  The kernel tells when
one ends, with its last counters, so that also a connection shorter than the sampling interval is
there with all its bytes.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

from testbed.errors import KernelError
from testbed.kernel import NetworkNamespace
from testbed.observe import sockets
from testbed.observe.changes import Changes, Row, Values
from testbed.observe.netlink import NETLINK_SOCK_DIAG, Question, walk
from testbed.observe.place import Place

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_RECEIVE_BYTES = 1 << 20
_EPHEMERAL = 32768  # net.ipv4.ip_local_port_range's usual lower end

Event = tuple[float, dict[str, Any]]


class _Socket:
    """What is kept of a socket: its series, and the parts of its tcp_info that tell a change."""

    __slots__ = ("at", "changes", "early", "identity", "late", "length", "state", "to")

    def __init__(self, identity: sockets.Identity, changes: Changes) -> None:
        self.identity, self.changes = identity, changes
        self.at = self.to = self.length = 0  # tcp_info within the answer; the answer's length
        self.early = self.late = bytearray()
        self.state = 0


class Connections:
    """Sockets of `place`; `events` is told once of each."""

    def __init__(self, place: Place, rows: list[Row], events: list[Event]) -> None:
        self._node, self._rows, self._events = place.node, rows, events
        with NetworkNamespace(place.fd):
            self._question = Question(NETLINK_SOCK_DIAG, sockets.TCPDIAG_GETSOCK, sockets.REQUEST)
            self._multipath_questions = [
                Question(NETLINK_SOCK_DIAG, sockets.SOCK_DIAG_BY_FAMILY, request)
                for request in map(sockets.mptcp_request, (socket.AF_INET, socket.AF_INET6))
            ]
            self._ended = _subscribe()
        self._buffer = bytearray(1 << 16)
        self._known: dict[bytes, _Socket] = {}
        self._multipath: dict[bytes, Changes] = {}
        self._totals: dict[str, dict[str, float]] = {}
        self._before = self._now = 0.0
        self._count = 0
        self._subflows = False
        self.lost_ends = 0

    def sample(self) -> int:
        """Ask once; how many sockets answered."""
        self._before, self._now = self._now, time.monotonic()
        self._count, self._subflows = 0, False
        self._take_ended()
        self._question.ask(self._take)
        if self._subflows:
            self._sample_multipath()
        return self._count

    # -- TCP, and the subflows of MPTCP ----------------------------------------------------------

    def _take(self, buffer: bytearray, start: int, end: int) -> None:
        known = self._known.get(sockets.cookie(buffer, start))
        if known is None or known.length != end - start:
            place = sockets.info_place(buffer, start, end)
            if place is None:
                return
            known = known or self._meet(buffer, start, end)
            known.at, known.to, known.length = place[0] - start, place[1] - start, end - start
        self._count += 1
        self._subflows = self._subflows or known.identity.token != 0
        at = start + known.at
        early, late = buffer[at + 24 : at + 44], buffer[at + 60 : at + 168]
        if early == known.early and late == known.late and known.state == buffer[start + 1]:
            known.changes.same(self._now)
            return
        known.early, known.late, known.state = early, late, buffer[start + 1]
        self._sample(known, sockets.tcp_values(buffer, at, start + known.to, end))

    def _meet(self, buffer: bytearray, start: int, end: int) -> _Socket:
        who = sockets.identity(buffer, start, end)
        known = _Socket(who, Changes(f"{self._node} {who}", sockets.METRICS, self._rows))
        self._known[sockets.cookie(buffer, start)] = known
        facts = {"congestion": who.congestion} if who.congestion else {}
        self._tell("subflow" if who.token else "tcp", who, **facts)
        return known

    def _sample(self, known: _Socket, values: Values) -> None:
        if known.changes.values:
            known.changes.update(self._now, values)
        else:
            known.changes.begin(self._now, values, born_after=self._before)

    def _tell(self, protocol: str, who: sockets.Identity, **facts: Any) -> None:
        suffix = " mptcp" if protocol == "mptcp" else ""
        facts |= {"source": f"{self._node} {who}{suffix}", "protocol": protocol}
        facts |= {"node": self._node, "local": str(who.local), "remote": str(who.remote)}
        if who.token:
            facts["token"] = who.token
        self._events.append((self._now, facts))

    # -- the end of sockets ----------------------------------------------------------------------

    def _take_ended(self) -> None:
        while True:
            try:
                size = self._ended.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.lost_ends += 1  # of those sockets the values last sampled remain
                continue
            walk(self._buffer, size, self._take_last)

    def _take_last(self, buffer: bytearray, start: int, end: int) -> None:
        key = sockets.cookie(buffer, start)
        place = sockets.last_info_place(buffer, start, end)
        if place is None:
            return
        if key not in self._known:
            if not sockets.carried_data(buffer, place[0]):
                return
            self._meet(buffer, start, end)
        known = self._known.pop(key)
        values, before = sockets.tcp_values(buffer, *place, place[1]), known.changes.values
        if not before or not _wiped(before, values):
            kept = before[-3:] or values[-3:]  # of congestion control nothing is told
            self._sample(known, values[:-3] + kept)
        self._finish(known)

    def _finish(self, known: _Socket) -> None:
        known.changes.end()
        grown = known.changes.grown()
        total = self._totals.setdefault(_group(self._node, known.identity), {})
        for name in sockets.TOTALS:
            total[name] = total.get(name, 0) + grown.get(name, 0)

    # -- MPTCP connections -----------------------------------------------------------------------

    def _sample_multipath(self) -> None:
        try:
            for question in self._multipath_questions:
                question.ask(self._take_multipath)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            # a kernel without CONFIG_INET_MPTCP_DIAG: subflows alone, and the records say so
            self._multipath_questions = []
            self._events.append((self._now, {"missing": "MPTCP connections (mptcp_diag)"}))

    def _take_multipath(self, buffer: bytearray, start: int, end: int) -> None:
        place = sockets.info_place(buffer, start, end)
        if place is None:
            return
        token, values = sockets.mptcp_values(buffer, *place)
        key = sockets.cookie(buffer, start)
        if key not in self._multipath:
            who = sockets.identity(buffer, start, end, token=token)
            self._multipath[key] = Changes(
                f"{self._node} {who} mptcp", sockets.MPTCP_METRICS, self._rows
            )
            self._multipath[key].begin(self._now, values, born_after=self._before)
            self._tell("mptcp", who)
        self._multipath[key].sample(self._now, values)

    def end(self) -> dict[str, dict[str, float]]:
        """No further sample; bytes and retransmissions by what a connection is to and from."""
        for known in self._known.values():
            self._finish(known)
        for changes in self._multipath.values():
            changes.end()
        return self._totals


def _subscribe() -> socket.socket:
    """A socket that is told of TCP sockets that end in this namespace."""
    ended = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG
    )
    ended.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    ended.setblocking(False)
    ended.bind((0, 0))
    for group in sockets.GROUPS_OF_ENDED:
        ended.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    return ended


def _wiped(before: Values, after: Values) -> bool:
    """Were a socket's counters reset by disconnecting it, as MPTCP does with a subflow it ends?"""
    return any(after[place] != before[place] and not after[place]
               for place in (sockets.ACKED, sockets.RECEIVED))  # fmt: skip


def _group(node: str, who: sockets.Identity) -> str:
    """What stays the same of a socket's name from run to run: the end with a port of its own."""
    if who.remote.port >= _EPHEMERAL > who.local.port:
        return f"{node}:{who.local.port} > {who.remote.ip}"
    return f"{node} > {who.remote}"
