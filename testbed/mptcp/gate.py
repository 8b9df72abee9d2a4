"""The trust gate of one live connection: sensitive bytes use trusted paths, the rest use all.

`confinement` decides; this carries it out on a socket through the path manager's userspace
commands, and watches the connection from a thread of its own while a period lasts or drains.

The sender enforces: a gate keeps what *this* side writes off untrusted paths.  For the other
direction the peer needs a gate of its own.

Conditions: the connection was made under the userspace path manager
(`configure.set_path_manager`), and an `EventMonitor` is open in the namespace of a side that
accepts joins.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from testbed.closing import Closing
from testbed.errors import ExperimentError, KernelError, TestbedError
from testbed.mptcp.confinement import (
    Command,
    Confinement,
    Create,
    Destroy,
    Guard,
    Path,
    Restore,
    Snapshot,
    State,
    Trust,
)
from testbed.mptcp.counters import Address, full_info
from testbed.mptcp.guard import PayloadGuard
from testbed.mptcp.path_manager import PathManager

__all__ = ["Path", "State", "Trust", "TrustGate"]

_PERIOD_S = 0.004  # between looks at a connection that is not open


class TrustGate(Closing):
    """Confines one connection.  `with gate.sensitive(): sock.sendall(secret)`.

    `guard`      the addresses that sensitive bytes may use, and the rules that keep them there
    `paths`      trusted paths to try when none works, beside those in use when a period begins
    `restore`    called with each untrusted path that may be used again, from the gate's thread;
                 by default the gate makes the subflow itself, which only the side that connected
                 can do (a server lets its client know, and the client does it).  Must not block

    `failures` holds, by path, why a subflow could not be made the last time it was tried.
    An error in the gate's thread leaves the gate shut and is raised by the next call.
    """

    def __init__(
        self,
        sock: socket.socket,
        manager: PathManager,
        guard: PayloadGuard,
        *,
        paths: Iterable[Path] = (),
        restore: Callable[[Path], None] | None = None,
    ) -> None:
        self._sock, self._manager, self._guard = sock, manager, guard
        self._restore = restore or self._create
        self._machine = Confinement(guard.trust, tuple(paths), repair=restore is None)
        self._token = full_info(sock)[0].token
        self._ids = {sock.getsockname()[0].removeprefix("::ffff:"): 0}
        self.failures: dict[Path, KernelError] = {}
        self.drain_times_s: list[float] = []
        self._ended_s = 0.0
        self._error: TestbedError | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="trust gate", daemon=True)
        self._thread.start()

    # -- for the application --------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the gate stands."""
        return self._machine.state

    @property
    def intruders(self) -> int:
        """Untrusted subflows that turned up while the gate was not open, and were destroyed."""
        return self._machine.intruders

    def begin(self, *, timeout_s: float = 10.0) -> None:
        """Confine the connection; when this returns, sensitive bytes may be written.

        Raises `KernelError` or `ExperimentError` where it cannot be confined (plain TCP, the
        kernel's path manager): nothing sensitive may be written then.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._check()
            self._learn_ids()
            self._carry_out(self._machine.begin(self._look()))
            self._carry_out(self._machine.observe(self._look()))
            while self._machine.state is not State.CONFINED:
                if time.monotonic() > deadline:
                    raise ExperimentError(
                        f"untrusted subflows are still there after {timeout_s:g} s",
                        remedy="write nothing sensitive on this connection",
                    )
                self._changed.wait(_PERIOD_S)
                self._carry_out(self._machine.observe(self._look()))
            self._changed.notify_all()

    def end(self) -> None:
        """The last sensitive byte has been written; returns at once.

        Other bytes may be written right away.  They use trusted paths until the peer has
        acknowledged the last sensitive one; then every path is used again.
        """
        with self._changed:
            self._check()
            self._ended_s = time.monotonic()
            self._carry_out(self._machine.end(self._look()))
            self._changed.notify_all()

    def wait_open(self, *, timeout_s: float = 60.0) -> None:
        """Wait until every path may be used again; `ExperimentError` when it is not in time."""
        with self._changed:
            if not self._changed.wait_for(self._open_or_failed, timeout_s):
                raise ExperimentError(
                    f"sensitive bytes are not acknowledged after {timeout_s:g} s",
                    remedy="see whether a trusted path works",
                )
            self._check()

    @contextmanager
    def sensitive(self, *, timeout_s: float = 10.0) -> Iterator[None]:
        """What the block writes is sensitive."""
        self.begin(timeout_s=timeout_s)
        try:
            yield
        finally:
            self.end()

    def close(self) -> None:
        """Stop watching (before the socket is closed); untrusted paths are not restored."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    # -- the driver -----------------------------------------------------------------------------

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise ExperimentError("the trust gate is closed")

    def _open_or_failed(self) -> bool:
        return self._machine.state is State.OPEN or self._error is not None or self._closed

    def _look(self) -> Snapshot:
        connection, subflows = full_info(self._sock)
        return Snapshot(
            time_s=time.monotonic(),
            write_seq=connection.write_seq,
            snd_una=connection.snd_una,
            subflows=subflows,
        )

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                if self._machine.state is State.OPEN:
                    self._changed.wait()
                    continue
                try:
                    self._carry_out(self._machine.observe(self._look()))
                except TestbedError as error:
                    self._error = error
                    self._changed.notify_all()
                    return
                self._changed.wait(_PERIOD_S)

    def _carry_out(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Destroy(subflow):
                    self._destroy(subflow.local, subflow.remote)
                case Create(path):
                    self._create(path)
                case Restore(path):
                    self._restore(path)
                case Guard(raised):
                    self._raise_guard(raised)

    def _raise_guard(self, raised: bool) -> None:
        self._guard.set(self._sock, raised=raised)
        if not raised:
            self.drain_times_s.append(time.monotonic() - self._ended_s)
            self._changed.notify_all()

    def _destroy(self, local: Address, remote: Address) -> None:
        try:
            self._manager.destroy_subflow(self._token, local, remote)
        except KernelError as error:
            if error.errno != errno.ESRCH:  # gone by itself; the next look tells
                raise

    def _learn_ids(self) -> None:
        # The kernel wants an address under the id it was first given, and forgets it when the
        # address's last subflow goes.
        given = self._manager.addresses(self._token)
        self._ids.update({endpoint.address: endpoint.id for endpoint in given})

    def _create(self, path: Path) -> None:
        self._learn_ids()
        number = self._ids.setdefault(path.local, max(self._ids.values()) + 1)
        try:
            self._manager.create_subflow(self._token, path.local, path.remote, local_id=number)
        except KernelError as error:
            if error.errno in (errno.EINVAL, errno.EPERM):
                raise
            self.failures[path] = error  # the path is down: no route, no such address
        else:
            self.failures.pop(path, None)
