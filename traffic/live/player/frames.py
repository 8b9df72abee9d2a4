"""Coded pictures that wait for their time, and which are left out when decoding is late; no I/O."""

from __future__ import annotations

from collections import deque

from traffic.live.player.mpegts import AccessUnit


class Frames:
    """Pictures with the second of playout at which each is due, in order.

    A picture is decoded when it is due, and all between two key pictures have to be.  So who is
    late decodes on, until a later key picture is due as well: what is before it is `skipped`.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._waiting: deque[tuple[float, AccessUnit, bool]] = deque()

    def push(self, due_s: float, unit: AccessUnit) -> None:
        """One more, later than the others."""
        self._waiting.append((due_s, unit, unit.key))

    def take(self, played_s: float) -> AccessUnit | None:
        """The next to decode at that second of playout, if one is due."""
        newest_key = 0
        for index, (due_s, _unit, key) in enumerate(self._waiting):
            if due_s > played_s:
                break
            if key:
                newest_key = index
        for _ in range(newest_key):
            self._waiting.popleft()
        self.skipped += newest_key
        if not self.behind(played_s):
            return None
        return self._waiting.popleft()[1]

    def behind(self, played_s: float) -> bool:
        """Is another one due already?"""
        return bool(self._waiting) and self._waiting[0][0] <= played_s

    @property
    def next_s(self) -> float | None:
        """When the next one is due; None when none waits."""
        return self._waiting[0][0] if self._waiting else None
