"""The state of a light network function, taken and put back while kernels go on running.

State is what packets have left behind: connections with their translation, elements of sets and
maps with the time they have left (meters are sets), counters and quotas.  It is not the program,
which is instantiated from the same graph at the other place, nor what a kernel does not tell: the
tokens of a rate limit, TCP's window, counters of connections.

    state = FunctionState.take(function)
    FunctionState.take(source).put(target)

`Access` holds what this takes open, for those who do it again and again; moving a function while
it runs is in `migration`.
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from testbed.closing import Closing
from testbed.errors import KernelError, TestbedError
from testbed.kernel import NetworkNamespace
from testbed.kernel.conntrack import ConntrackTable, Difference, Entries, Events, Refusal
from testbed.kernel.nftables import Nftables
from testbed.kernel.records import pack, unpack
from testbed.kernel.set_elements import Elements, NamedSet, Sets
from testbed.vnf import labels, state_values

_LENGTH = struct.Struct("!I")


class Stateful(Protocol):
    """What state is taken from: a namespace, and the nftables tables in it that hold state."""

    @property
    def namespace(self) -> NetworkNamespace:
        """Where connection tracking and tables are."""

    @property
    def tables(self) -> Sequence[str]:
        """Families and names of tables, as nft writes them ("ip nat")."""


@dataclass(frozen=True)
class Scope:
    """What of a state is meant.

    Between places with other addresses, connections do not move as they are (they are redirected,
    and come to the new place as new ones): `CLIENTS` is what is known of clients.
    """

    connections: bool = True
    static_sets: bool = True  # sets that only commands change
    values: bool = True  # counters, quotas
    labels: bool = False  # those of connections, by client


EVERYTHING = Scope()
CLIENTS = Scope(connections=False, static_sets=False, labels=True)


@dataclass(frozen=True, eq=False)
class TableState:
    """State of one table: values of counters and quotas (None: left alone), and sets."""

    values: state_values.Values | None
    sets: Mapping[str, Elements]


@dataclass(frozen=True, eq=False)
class Change:
    """What leads from one state to a later one; sets that changed are there as a whole."""

    connections: Difference
    tables: Mapping[str, TableState]
    labels: Mapping[str, int] | None = None  # by client; None: as they were

    def __len__(self) -> int:
        """Entries, elements and labels told."""
        sets = (len(e) for table in self.tables.values() for e in table.sets.values())
        return len(self.connections) + sum(sets) + len(self.labels or ())

    def encode(self) -> bytes:
        """The change in few bytes."""
        parts = [pack(self.connections.changed.movable()), pack(self.connections.gone.named())]
        tables: dict[str, object] = {}
        now_s = time.monotonic()
        for table, state in self.tables.items():
            tables[table] = {"values": state.values, "sets": list(state.sets)}
            parts += [pack(elements.aged(now_s).blocks) for elements in state.sets.values()]
        about = {"tables": tables, "labels": self.labels}
        parts.insert(0, json.dumps(about, separators=(",", ":")).encode())
        framed = b"".join(_LENGTH.pack(len(part)) + part for part in parts)
        return zlib.compress(framed, 6)

    @classmethod
    def decode(cls, data: bytes) -> Change:
        """A change from what `encode` gave; `TestbedError` if it is anything else.

        The time that elements have left counts from now: what the bytes took to come is not
        known here.
        """
        try:
            about, changed, gone, *rest = _parts(zlib.decompress(data))
            now_s, waiting, tables = time.monotonic(), iter(rest), {}
            told_all = json.loads(about)
            for table, told in told_all["tables"].items():
                sets = {
                    name: Elements(tuple(unpack(next(waiting))), now_s) for name in told["sets"]
                }
                tables[table] = TableState(told["values"], sets)
            connections = Difference(Entries(unpack(changed)), Entries(unpack(gone)))
            return cls(connections, tables, told_all["labels"])
        except (zlib.error, struct.error, ValueError, KeyError, StopIteration, TypeError) as error:
            raise TestbedError(f"this is no encoded state: {error!r}") from error


def _parts(data: bytes) -> list[bytes]:
    parts, at = [], 0
    while at < len(data):
        (size,) = _LENGTH.unpack_from(data, at)
        parts.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return parts


@dataclass(frozen=True, eq=False)
class FunctionState:
    """A function's state at one moment."""

    connections: Entries
    tables: Mapping[str, TableState]
    time_s: float  # CLOCK_MONOTONIC
    labels: Mapping[str, int] = field(default_factory=dict)  # by client

    @classmethod
    def take(cls, function: Stateful, scope: Scope = EVERYTHING) -> FunctionState:
        """Take a function's state; it goes on meanwhile."""
        with Access(function) as access:
            return access.take(scope)

    @classmethod
    def empty(cls) -> FunctionState:
        """The state of a function that has seen nothing."""
        return cls(Entries(), {}, time.monotonic())

    def put(self, function: Stateful) -> list[Refusal]:
        """Put this state into a function of the same program; the entries it refused."""
        with Access(function) as access:
            return access.put(self.since(FunctionState.empty()))

    def since(self, earlier: FunctionState, *, values: bool = True) -> Change:
        """What has changed since `earlier`; counters and quotas only with `values`."""
        tables = {}
        for name, state in self.tables.items():
            known = earlier.tables.get(name)
            sets = {
                each: elements
                for each, elements in state.sets.items()
                if known is None or each not in known.sets or not elements.same(known.sets[each])
            }
            tables[name] = TableState(state.values if values else None, sets)
        passed_s = self.time_s - earlier.time_s
        connections = self.connections.since(earlier.connections, passed_s=passed_s)
        labelled = None if self.labels == earlier.labels else self.labels
        return Change(connections, tables, labelled)


class Access(Closing):
    """A function's state within reach: sockets and library contexts that stay open."""

    def __init__(self, function: Stateful) -> None:
        self._connections = ConntrackTable(function.namespace)
        self._events: Events | None = None
        self._nft = Nftables(function.namespace)
        self._tables = {
            table: Sets(function.namespace, *table.split(maxsplit=1)) for table in function.tables
        }

    def close(self) -> None:
        """Close the sockets."""
        if self._events:
            self._events.close()
        self._connections.close()
        self._nft.close()
        for sets in self._tables.values():
            sets.close()

    def follow(self) -> None:
        """Follow what happens to connections, so that `latest` need not look at all of them.

        Where the kernel does not tell of all (`conntrack.tell_all`), it looks all the same.
        """
        if self._events is None and self._connections.tells_all():
            self._events = self._connections.events()

    def take(self, scope: Scope = EVERYTHING) -> FunctionState:
        """The state now."""
        self._happened()  # what happened before is in what is taken
        return self._take(scope)

    def _take(self, scope: Scope) -> FunctionState:
        time_s = time.monotonic()
        wanted = scope.connections or scope.labels
        connections = self._connections.dump() if wanted else Entries()
        known = labels.of_clients(connections) if scope.labels else {}
        tables = {
            name: self._taken(name, sets, scope, time_s) for name, sets in self._tables.items()
        }
        return FunctionState(connections if scope.connections else Entries(), tables, time_s, known)

    def latest(self, known: FunctionState, scope: Scope = EVERYTHING) -> Change:
        """What has changed since `known` was taken, which was the last to be taken."""
        happened = self._happened() if scope.connections and not scope.labels else None
        if happened is None:
            return self.take(scope).since(known)
        rest = self._take(replace(scope, connections=False))
        return Change(happened, rest.since(known).tables)

    def _happened(self) -> Difference | None:
        """What the kernel told of connections; None where it did not tell all."""
        if self._events is None:
            return None
        try:
            return self._events.difference()
        except KernelError:  # more happened than the socket holds
            self._events.close()
            self._events = self._connections.events()
            return None

    @property
    def connections(self) -> int:
        """How many connections there are, by the kernel's own count."""
        return len(self._connections)

    def _taken(self, table: str, sets: Sets, scope: Scope, time_s: float) -> TableState:
        values = state_values.read(self._nft.listing(table)) if scope.values else None
        chosen = [each for each in sets.named() if each.dynamic or scope.static_sets]
        return TableState(values, {s.name: sets.elements(s.name, time_s) for s in chosen})

    def put(self, change: Change) -> list[Refusal]:
        """Carry out a change; the connections that the kernel refused.

        Raises `KernelError` or `ExperimentError` when tables do not take it: they are then as
        they were.
        """
        for name, state in change.tables.items():
            sets = self._tables.get(name)
            if sets is None:
                raise TestbedError(
                    f"this function has no table {name}", remedy="use the same program"
                )
            self._put_table(name, sets, state)
        if change.labels is not None:
            labels.remember(self._nft, change.labels)
        self._connections.delete(change.connections.gone)
        self._connections.delete(change.connections.changed)
        return self._connections.insert(change.connections.changed)

    def _put_table(self, table: str, sets: Sets, state: TableState) -> None:
        now_s = time.monotonic()
        wanted = {name: elements.aged(now_s) for name, elements in state.sets.items()}
        if state.values is not None:
            leading: list[NamedSet] = [each for each in sets.named() if each.of_objects]
            kept = {each.name: sets.elements(each.name, now_s) for each in leading}
            if state_values.load(self._nft, table, state.values, maps=list(kept)):
                wanted = kept | wanted
        sets.replace(wanted.items())
