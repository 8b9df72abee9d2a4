"""Namespaces made ahead of need, by a thread, while links are made from those there already.

Making a network namespace is half of what a host costs the kernel, and it can be done on another
core: a thread that unshares changes nothing for the rest of its process.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import NamedTuple

from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink, unshare
from testbed.kernel.namespaces import CLONE_NEWNET, in_new_thread, open_current


class Home(NamedTuple):
    """A namespace with its loopback up, and an rtnetlink socket in it."""

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

    def prepare(self, count: int) -> None:
        """Begin to make `count` homes."""
        self._due += count
        threading.Thread(target=self._make, args=(count,), daemon=True).start()

    def _make(self, count: int) -> None:
        for _ in range(count):
            try:
                self._made.put(_new_home())
            except OSError as error:
                self._made.put(error)

    def take(self) -> Home:
        """A home: one announced, or one made now."""
        if self._due == 0:
            return in_new_thread(_new_home)
        self._due -= 1
        made = self._made.get()
        if isinstance(made, OSError):
            raise made
        return made

    def discard(self) -> None:
        """Drop what was announced and not taken."""
        while self._due:
            self.take().close()


def _new_home() -> Home:
    """A new home; the calling thread is left inside it."""
    unshare(CLONE_NEWNET)
    namespace = NetworkNamespace(open_current("net"))
    netlink = RtNetlink()
    netlink.request(rtnetlink.set_link(1, up=True))
    return Home(namespace, netlink)
