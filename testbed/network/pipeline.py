"""Requests of a network under construction, done by a thread while the next ones are thought of.

Most of what bringing a network up takes is the kernel's work on netlink requests, and Python may
go on meanwhile.  Between `with PIPELINE:` and its end requests are done in two steps: what makes
interfaces (`make`) at once, many to a datagram; what configures a node (`put`) when everything is
made, one datagram a node.  The kernel's network configuration has one lock: steps that overlap
would only wait for each other.

Outside the block both send.  Whoever wants to see what was asked for calls `flush` first, which a
node's `netlink` and `netns` do by themselves.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import NamedTuple

from testbed.errors import KernelError
from testbed.kernel import RtNetlink
from testbed.kernel.rtnetlink import Message

_AT_ONCE = 64  # requests a datagram
_MEANWHILE = 8192  # requests for nodes that are begun before the last one is known
_SWITCH_S = 0.0005  # Python's turns between threads: the default, 5 ms, is ten hosts long


class _Flush(NamedTuple):
    """What configures nodes, to be done when everything before is made, and whom to tell."""

    settings: dict[RtNetlink, list[Message]]
    done: threading.Event


class Pipeline:
    """A way to the kernel; a request that it refuses is raised by the next `flush`."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Sequence[Message] | _Flush | None] = SimpleQueue()
        self._settings: dict[RtNetlink, list[Message]] = {}
        self._waiting = 0  # requests in `_settings`
        self._thread: threading.Thread | None = None
        self._refused: KernelError | None = None
        self._restore: tuple[float, bool] = (0.0, False)

    def make(self, netlink: RtNetlink, messages: Sequence[Message]) -> None:
        """Make interfaces; `netlink` and whoever opened the pipeline share a namespace, or the
        requests name theirs.  Without a pipeline, raises `KernelError` for what is refused.
        """
        if self._thread is None:
            netlink.batch(messages)
        else:
            self._queue.put(messages)

    def put(self, netlink: RtNetlink, messages: Sequence[Message]) -> None:
        """Configure a node by the socket in it; errors as in `make`."""
        if self._thread is None:
            netlink.batch(messages)
        else:
            self._settings.setdefault(netlink, []).extend(messages)
            self._waiting += len(messages)
            if self._waiting >= _MEANWHILE:
                self._hand_over()

    def _hand_over(self) -> threading.Event:
        """Let what configures nodes be done when all that was asked for before is made."""
        settings, self._settings, self._waiting = self._settings, {}, 0
        flush = _Flush(settings, threading.Event())
        self._queue.put(flush)
        return flush.done

    def flush(self) -> None:
        """Wait until everything asked for is done; raises the first `KernelError` there was."""
        if self._thread is None:
            return
        self._hand_over().wait()
        refused, self._refused = self._refused, None
        if refused is not None:
            raise refused

    def __enter__(self) -> Pipeline:
        self._restore = (sys.getswitchinterval(), gc.isenabled())
        sys.setswitchinterval(_SWITCH_S)
        gc.disable()  # what is built lives on: looking for garbage in it is in vain
        self._thread = threading.Thread(target=self._run, name="netlink pipeline", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        try:
            self.flush()
        except KernelError:
            if kind is None:  # else the error that ended the construction says more
                raise
        finally:
            assert self._thread is not None
            self._queue.put(None)
            self._thread.join()
            self._thread = None
            interval, collect = self._restore
            sys.setswitchinterval(interval)
            if collect:
                gc.enable()

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        netlink = RtNetlink()
        try:
            for work in self._work():
                if isinstance(work, _Flush):
                    for socket, messages in work.settings.items():
                        self._send(socket, messages)
                    work.done.set()
                else:
                    self._send(netlink, work)
        finally:
            netlink.close()

    def _work(self) -> Iterator[Sequence[Message] | _Flush]:
        """What was put, until the end of it; what makes interfaces is gathered."""
        gathered: list[Message] = []
        while True:
            try:
                work = self._queue.get(block=not gathered)
            except Empty:
                work = ()
            gathered += work if not isinstance(work, _Flush) and work else ()
            if gathered and (not work or isinstance(work, _Flush) or len(gathered) >= _AT_ONCE):
                yield gathered
                gathered = []
            if work is None:
                return
            if isinstance(work, _Flush):
                yield work

    def _send(self, netlink: RtNetlink, messages: Sequence[Message]) -> None:
        try:
            netlink.batch(messages)
        except KernelError as error:
            self._refused = self._refused or error


PIPELINE = Pipeline()
