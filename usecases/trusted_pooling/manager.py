"""The terminal's connection manager: opens connections and sees to it which paths they use.

`TrustManager` carries out `policy` through the path manager's userspace commands; a sensitive
connection lives behind a trust gate that is shut from beginning to end, a mixed one behind a
gate that opens and shuts.  `PlainManager` is what there is without it: the kernel's own path
manager, or a single interface.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from testbed.errors import KernelError
from testbed.kernel import NetworkNamespace
from testbed.mptcp import sockets
from testbed.mptcp.confinement import Path, Trust
from testbed.mptcp.counters import Address
from testbed.mptcp.events import Event as KernelEvent
from testbed.mptcp.events import EventKind, EventMonitor
from testbed.mptcp.gate import TrustGate
from testbed.mptcp.guard import PayloadGuard
from testbed.mptcp.path_manager import PathManager
from usecases.trusted_pooling import policy
from usecases.trusted_pooling.channel import Channel
from usecases.trusted_pooling.policy import Interface, Join, PathPolicy, Purpose

_CONNECT_S = 15.0


@dataclass
class Switching:
    """Seconds until sensitive bytes could be written, and until all paths could be used again."""

    begins_s: list[float] = field(default_factory=list)
    drains_s: list[float] = field(default_factory=list)


class Connection:
    """A connection as the application sees it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.switching = Switching()

    @contextmanager
    def sensitive(self) -> Iterator[None]:
        """What the block writes is sensitive."""
        yield

    def wait_open(self) -> Switching:
        """Wait until all paths may be used again; the times to switch so far."""
        return self.switching

    def peer_opened(self) -> None:
        """The peer may be sent to over all paths again."""

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()


class Manager(ABC):
    """Opens connections; `channels` holds all of them, also those closed by now."""

    def __init__(self, congestion: str) -> None:
        self.congestion = congestion
        self.channels: list[Channel] = []

    @abstractmethod
    def open(
        self, remote: tuple[str, int], purpose: Purpose, name: str, *, phase: str
    ) -> Connection:
        """Connect to `remote`; with a `phase` everything sent there is sensitive, and noted so."""

    def _channel(self, remote: tuple[str, int], local: str, name: str, phase: str) -> Channel:
        sock = sockets.connect(
            remote, local=(local, 0), congestion=self.congestion, timeout_s=_CONNECT_S
        )
        channel = Channel(sock, name=name, sender="phone", sensitive=phase)
        self.channels.append(channel)
        return channel

    @abstractmethod
    def close(self) -> None:
        """Stop managing; the connections are closed by those who opened them."""


class PlainManager(Manager):
    """Connections start from one address; the kernel's path manager does what it is set up for."""

    def __init__(self, address: str, congestion: str) -> None:
        super().__init__(congestion)
        self._address = address

    def open(
        self, remote: tuple[str, int], purpose: Purpose, name: str, *, phase: str
    ) -> Connection:
        """Connect; what it is for makes no difference."""
        return Connection(self._channel(remote, self._address, name, phase))

    def close(self) -> None:
        """Nothing to stop: the kernel does it."""


class TrustManager(Manager):
    """Connections that use what the trust table allows them; see the module's docstring."""

    def __init__(self, interfaces: Sequence[Interface], congestion: str) -> None:
        super().__init__(congestion)
        self.interfaces = tuple(interfaces)
        trusted = frozenset(each.address for each in interfaces if each.trusted)
        self.guard = PayloadGuard(NetworkNamespace.current(), Trust(local=trusted))
        self._path_manager = PathManager()
        self._monitor = EventMonitor()
        self._lock = threading.RLock()
        self._managed: dict[int, ManagedConnection] = {}
        self._wake_read, self._wake_write = os.pipe()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._watch, name="path manager", daemon=True)
        self._thread.start()

    def open(
        self, remote: tuple[str, int], purpose: Purpose, name: str, *, phase: str
    ) -> Connection:
        """Connect on the interface the policy says; `NoTrustedPath` where there is none."""
        if self._error is not None:
            raise self._error
        decisions = PathPolicy(self.interfaces, purpose)
        channel = self._channel(remote, decisions.first.address, name, phase)
        connection = ManagedConnection(self, channel, decisions, Address(*remote))
        with self._lock:
            self._managed[connection.token] = connection
        return connection

    def close(self) -> None:
        """Stop listening to the path manager."""
        os.write(self._wake_write, b".")
        self._thread.join()
        self._monitor.close()
        self._path_manager.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def forget(self, connection: ManagedConnection) -> None:
        """The connection is closed."""
        with self._lock:
            self._managed.pop(connection.token, None)

    def tell(self, connection: ManagedConnection, event: policy.Event) -> None:
        """Let the connection's policy know, and do what it wants."""
        with self._lock:
            for join in connection.decisions.handle(event):
                self._join(connection, join)

    def _join(self, connection: ManagedConnection, join: Join) -> None:
        address = join.interface.address
        try:
            self._path_manager.create_subflow(
                connection.token, address, connection.remote, local_id=connection.ids[address]
            )
        except KernelError as error:
            if error.errno in (errno.EINVAL, errno.EPERM):
                raise  # not a path that is down: this connection cannot be managed at all
            self.tell(connection, policy.SubflowLost(address))

    def _watch(self) -> None:
        try:
            while True:
                ready, _, _ = select.select([self._monitor.fileno(), self._wake_read], [], [])
                if self._wake_read in ready:
                    return
                for event in self._monitor.read():
                    self._take(event)
        except BaseException as error:  # handed to whoever opens the next connection
            self._error = error

    def _take(self, event: KernelEvent) -> None:
        with self._lock:
            connection = self._managed.get(event.token or 0)
            if connection is None:
                return
            if event.kind is EventKind.ESTABLISHED:
                self.tell(connection, policy.Established())
            elif event.kind is EventKind.SUB_ESTABLISHED and event.local:
                self.tell(connection, policy.SubflowUp(event.local.ip))
            elif event.kind is EventKind.SUB_CLOSED and event.local:
                self.tell(connection, policy.SubflowLost(event.local.ip))


class ManagedConnection(Connection):
    """A connection under `TrustManager`."""

    def __init__(
        self, manager: TrustManager, channel: Channel, decisions: PathPolicy, remote: Address
    ) -> None:
        super().__init__(channel)
        self.decisions, self.remote = decisions, remote
        self.token = sockets.info(channel.watch).token
        self.ids = {each.address: n for n, each in enumerate(manager.interfaces, 1)}
        self.ids[decisions.first.address] = 0  # RFC 8684 3.2: the initial subflow's address
        self._manager = manager
        self._stack = ExitStack()
        self._gate = self._make_gate() if decisions.purpose is not Purpose.OTHER else None
        if decisions.purpose is Purpose.SENSITIVE and self._gate:
            self._gate.begin()

    def _make_gate(self) -> TrustGate:
        netlink = self._stack.enter_context(PathManager())
        trusted = [Path(each.address, self.remote) for each in self._manager.interfaces
                   if each.trusted]  # fmt: skip
        gate = TrustGate(self.channel.watch, netlink, self._manager.guard, paths=trusted)
        return self._stack.enter_context(gate)

    @contextmanager
    def sensitive(self) -> Iterator[None]:
        """Confine the connection to trusted paths while the block writes."""
        if self._gate is None or self.decisions.purpose is Purpose.SENSITIVE:
            yield
            return
        started = time.monotonic()
        self.channel.sample()  # what the subflows that are closed now have moved
        self._manager.tell(self, policy.GateShut())
        with self._gate.sensitive():
            self.switching.begins_s.append(time.monotonic() - started)
            yield

    def wait_open(self) -> Switching:
        """Wait until every sensitive byte was acknowledged; all times to switch so far."""
        if self._gate is not None and self.decisions.purpose is Purpose.MIXED:
            self._gate.wait_open()
            # Only now: a join made while sensitive bytes are under way would be a way for them.
            self._manager.tell(self, policy.GateOpened())
            self.switching.drains_s = list(self._gate.drain_times_s)
        return self.switching

    def peer_opened(self) -> None:
        """Make the subflows again that the peer had closed."""
        self._manager.tell(self, policy.PeerOpened())

    def close(self) -> None:
        """Close the gate, then the connection."""
        self._manager.forget(self)
        self._stack.close()
        super().close()
