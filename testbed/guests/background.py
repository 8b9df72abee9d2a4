"""One event loop, in a thread of its own, for all machines that are nodes of networks.

A node is used from wherever its user is: from a script without any loop, from the loop of a use
case, from Mininet's command line.  Its machine lives in one place, this loop.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class Background:
    """The loop; it is started on first use, and anew in a process that was forked."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._lock = threading.Lock()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                threading.Thread(
                    target=self._loop.run_forever, name="machines", daemon=True
                ).start()
            return self._loop

    def begin(self, work: Coroutine[Any, Any, _T]) -> asyncio.Future[_T]:
        """Begin work there; for `call` and `there` to wait for."""
        return asyncio.run_coroutine_threadsafe(_task(work), self.loop).result()

    def wait(self, begun: asyncio.Future[_T]) -> _T:
        """What begun work returns, or raises; an interrupted wait ends the work."""
        waiting = asyncio.run_coroutine_threadsafe(_outcome(begun), self.loop)
        try:
            return waiting.result()
        except KeyboardInterrupt:
            self.loop.call_soon_threadsafe(begun.cancel)
            raise

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What `work` returns, or raises."""
        return self.wait(self.begin(work))

    async def there(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The same in a coroutine of any loop; when that is cancelled, so is `work`, to its end."""
        begun = self.begin(work)
        waiting = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_outcome(begun), self.loop))
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            self.loop.call_soon_threadsafe(begun.cancel)
            await asyncio.gather(waiting, return_exceptions=True)
            raise


async def _task(work: Coroutine[Any, Any, _T]) -> asyncio.Future[_T]:
    return asyncio.ensure_future(work)


async def _outcome(begun: asyncio.Future[_T]) -> _T:
    return await asyncio.shield(begun)


BACKGROUND = Background()
