"""Namespaces made ahead of need, by threads: a thread that unshares changes nothing for the rest
of its process.

Making a network namespace is a third of what a host costs the kernel, and the only part of it
that two processors do faster than one.
"""

from __future__ import annotations

import os
import threading
from queue import SimpleQueue
from typing import NamedTuple

from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink, setns, unshare
from testbed.kernel.namespaces import CLONE_NEWNET, in_new_thread, open_current
from testbed.network.pipeline import PIPELINE

_THREADS = min(4, len(os.sched_getaffinity(0)))
_WORTH_THREADS = 16  # homes; fewer are made by one thread


class Home(NamedTuple):
    """A namespace, and an rtnetlink socket in it."""

    namespace: NetworkNamespace
    netlink: RtNetlink

    def close(self) -> None:
        """Let go of both."""
        self.netlink.close()
        self.namespace.close()


class Supply:
    """Hands out homes for nodes; those announced by `prepare` are made meanwhile."""

    def __init__(self) -> None:
        self._made: SimpleQueue[Home | OSError] = SimpleQueue()
        self._due = 0
        self._threads: list[threading.Thread] = []

    def prepare(self, count: int) -> None:
        """Begin to make `count` homes."""
        self._due += count
        threads = _THREADS if count >= _WORTH_THREADS else 1
        for number in range(threads):
            share = len(range(number, count, threads))
            thread = threading.Thread(target=self._make, args=(share,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _make(self, count: int) -> None:
        for _ in range(count):
            try:
                self._made.put(_new_home())
            except OSError as error:
                self._made.put(error)

    def take(self) -> Home:
        """A home: one announced, or one made now; its loopback comes up."""
        home = self._take()
        PIPELINE.put(home.netlink, (rtnetlink.set_link(1, up=True),))
        return home

    def _take(self) -> Home:
        if self._due == 0:
            return in_new_thread(_new_home)
        while self._threads:  # links made meanwhile would wait for the same lock, and make it wait
            self._threads.pop().join()
        self._due -= 1
        made = self._made.get()
        if isinstance(made, OSError):
            raise made
        return made

    def discard(self) -> None:
        """Drop what was announced and not taken."""
        while self._due:
            self._take().close()


def _new_home() -> Home:
    """A new home.  Each is a child of the namespace that the calling thread is in and stays in:
    the kernel takes some of a new namespace's settings from its parent.
    """
    here = open_current("net")
    try:
        unshare(CLONE_NEWNET)
        namespace = NetworkNamespace(open_current("net"))
        home = Home(namespace, RtNetlink())
        setns(here, CLONE_NEWNET)
    finally:
        os.close(here)
    return home
