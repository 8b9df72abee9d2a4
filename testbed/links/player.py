"""A player: actions in a thread, each at its own time since one epoch, so that no delay adds up.

An action that comes late does not shift those after it; how late each one began is kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from testbed.links.histogram import Histogram

Schedule = Iterable[tuple[float, Callable[[], object]]]
"""When (s since the epoch, ascending) and what; it may be endless."""


class Player:
    """Plays a schedule once `start` is called, until it ends, fails or is stopped.

    `clock` and `wait` (which returns True when the player was stopped meanwhile) may be replaced
    in tests.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        epoch: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._schedule = schedule
        self._clock = clock
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._error: BaseException | None = None
        self.epoch = epoch
        self.lateness = Histogram()
        """How late each action began."""

    def start(self) -> None:
        """Begin; without an epoch given, now is it."""
        if self.epoch is None:
            self.epoch = self._clock()
        self._thread.start()

    def stop(self) -> None:
        """End it after the action that runs; raises what an action raised."""
        self._stopped.set()
        if threading.current_thread() is not self._thread:
            self.join()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended; raises what an action raised."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    @property
    def running(self) -> bool:
        """Is there more to come?"""
        return self._thread.is_alive()

    def _play(self) -> None:
        try:
            self.play()
        except BaseException as error:
            self._error = error

    def play(self) -> None:
        """Play in the calling thread."""
        assert self.epoch is not None
        for at_s, action in self._schedule:
            if self._stopped.is_set() or self._sleep_until(self.epoch + at_s):
                return
            self.lateness.add(self._clock() - self.epoch - at_s)
            action()

    def _sleep_until(self, moment: float) -> bool:
        """True when it was stopped meanwhile."""
        while (left := moment - self._clock()) > 0:
            if self._wait(left):
                return True
        return False
