"""The agent of a platform: it instantiates functions for others, and stores state that comes.

One `Agent` listens in a platform's namespace (a data centre's server); `reached_from` gives a
`Channel` from another platform, whose connection crosses the emulated network and is set up before
anything moves.  Agents are threads of the experiment's process: they hold the functions' objects,
and are there when a migration begins.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from typing import Protocol

from testbed.closing import Closing
from testbed.errors import ExperimentError, TestbedError
from testbed.kernel import NetworkNamespace
from testbed.kernel.conntrack import Refusal
from testbed.vnf.migration_wire import ConnectionLost, Kind, NotWanted, Stream
from testbed.vnf.state import Access, Change, Stateful

_CONNECT_S = 10.0


class Movable(Stateful, Protocol):
    """A function that can be moved."""

    def pause(self) -> None:
        """Stop forwarding; state stays."""

    def resume(self) -> None:
        """Forward (again)."""

    def destroy(self) -> None:
        """End the function and all that belongs to it."""


Instantiate = Callable[[], Movable]


class _Arriving:
    """A function that state is put into, and does not run yet."""

    def __init__(self, function: Movable) -> None:
        self.function = function
        self.access = Access(function)
        self.runs = False

    def put(self, change: Change, *, last: bool) -> list[Refusal]:
        refused = self.access.put(change)
        if last and not refused:
            self.function.resume()
            self.runs = True
        return refused

    def destroy(self) -> None:
        self.access.close()
        self.function.destroy()


class Agent(Closing):
    """Listens on `address` in `namespace`; `functions` are those that came and stay, by name."""

    def __init__(self, namespace: NetworkNamespace, address: str, *, port: int = 0) -> None:
        self._namespace = namespace
        self._offers: dict[str, Instantiate] = {}
        self._arriving: dict[str, _Arriving] = {}
        self.functions: dict[str, Movable] = {}
        self._lock = threading.Lock()  # whoever touches a function that arrives
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with namespace:
            self._listener = socket.create_server((address, port), family=family)
        self._listener.settimeout(0.1)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._start(self._listen)

    def close(self) -> None:
        """Stop listening and give up what is arriving; functions that stay do so."""
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()
        for name in list(self._arriving):
            self.give_up(name)

    def reached_from(self, namespace: NetworkNamespace) -> Channel:
        """A connection to this agent from another platform."""
        return Channel(self, namespace)

    def offer(self, name: str, instantiate: Instantiate) -> None:
        """Say how the function called `name` is instantiated here."""
        self._offers[name] = instantiate

    def give_up(self, name: str) -> None:
        """Remove a function that was arriving (running or not), if there is one."""
        with self._lock:
            arriving = self._arriving.pop(name, None)
            if arriving is not None:
                arriving.destroy()

    def keep(self, name: str) -> None:
        """Let a function that arrived stay, whatever becomes of the connection it came by."""
        with self._lock:
            self._stays(name)

    # -- serving ----------------------------------------------------------------------------

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _peer = self._listener.accept()
                self._start(self._serve, Stream(connection))

    def _serve(self, stream: Stream) -> None:
        """Answer requests until the other agent is gone; what did not come whole goes then."""
        name = ""
        try:
            while True:
                kind, body = stream.receive(stop=self._closing)
                if kind is Kind.PREPARE:
                    name = body.decode()
                stream.send(*self._answer(kind, name, body), stop=self._closing)
        except (ConnectionLost, NotWanted):
            pass
        finally:
            stream.close()
            with self._lock:
                arriving = self._arriving.get(name)
            if arriving is not None and not arriving.runs:
                self.give_up(name)

    def _answer(self, kind: Kind, name: str, body: bytes) -> tuple[Kind, bytes]:
        try:
            with self._lock:
                if kind is Kind.PREPARE:
                    return self._prepare(name)
                if kind is Kind.COPY:
                    return self._copy(name, body)
                return self._keep(name)
        except (TestbedError, OSError) as error:
            return Kind.REFUSED, str(error).encode()

    def _prepare(self, name: str) -> tuple[Kind, bytes]:
        if name in self._arriving:
            raise ExperimentError(f"{name} is arriving already")
        function = self._offers[name]()
        try:
            function.pause()
            self._arriving[name] = _Arriving(function)
        except BaseException:
            function.destroy()
            raise
        return Kind.READY, b""

    def _copy(self, name: str, body: bytes) -> tuple[Kind, bytes]:
        arriving = self._present(name)
        refused = arriving.put(Change.decode(body[1:]), last=bool(body[0]))
        told = {
            "connections": arriving.access.connections,
            "refused": len(refused),
            "reason": ", ".join(sorted({each.reason for each in refused})),
        }
        return Kind.STORED, json.dumps(told).encode()

    def _keep(self, name: str) -> tuple[Kind, bytes]:
        self._stays(name)
        return Kind.READY, b""

    def _stays(self, name: str) -> None:
        arriving = self._arriving.pop(name, None)
        if arriving is not None:
            self.functions[name] = arriving.function
            arriving.access.close()

    def _present(self, name: str) -> _Arriving:
        if name not in self._arriving:
            raise ExperimentError(f"no function {name!r} is arriving here")
        return self._arriving[name]


class Channel(Closing):
    """A connection from the platform in `namespace` to an agent."""

    def __init__(self, agent: Agent, namespace: NetworkNamespace) -> None:
        self.agent = agent
        self._namespace = namespace
        self.sent = self.received = 0  # bytes of connections that are over
        self._stream: Stream | None = self._connect()

    def _connect(self) -> Stream:
        family = socket.AF_INET6 if ":" in self.agent.address[0] else socket.AF_INET
        with self._namespace:
            connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(_CONNECT_S)
        try:
            connection.connect(self.agent.address)
        except OSError as error:
            connection.close()
            where = "{} port {}".format(*self.agent.address)
            raise ConnectionLost(f"no agent at {where}: {error}") from error
        return Stream(connection)

    @property
    def carried(self) -> int:
        """Bytes of frames carried so far, both ways."""
        open_ones = [self._stream] if self._stream else []
        return self.sent + self.received + sum(s.sent + s.received for s in open_ones)

    def close(self) -> None:
        """Close the connection; the next request opens one anew."""
        if self._stream:
            self.sent += self._stream.sent
            self.received += self._stream.received
            self._stream.close()
            self._stream = None

    def ask(
        self, kind: Kind, body: bytes, *, deadline: float | None, stop: threading.Event | None
    ) -> bytes:
        """Send a request and return what its answer holds.

        Raises `ExperimentError` when it is refused, `ConnectionLost` when no answer comes by
        `deadline`, `NotWanted` as soon as `stop` is set.
        """
        self._stream = self._stream or self._connect()
        self._stream.send(kind, body, deadline=deadline, stop=stop)
        answer, told = self._stream.receive(deadline=deadline, stop=stop)
        if answer is Kind.REFUSED:
            raise ExperimentError(told.decode())
        return told
