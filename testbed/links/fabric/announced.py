"""A player that announces each change before its time, so that the fabric makes it exactly then."""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Callable
from typing import Any

from testbed.links.engine import Apply, Changes, Fields
from testbed.links.player import Player, Schedule

LEAD_S = 0.02
"""How long before its time a change is announced: longer than a busy machine delays a thread."""


class Announced(Player):
    """Plays `changes` by `apply`, each after `announce(moment, fields)`; `revoke` when stopped."""

    def __init__(
        self,
        changes: Changes,
        apply: Apply,
        *,
        announce: Callable[[float, Fields], object],
        revoke: Callable[[], object],
        **options: Any,
    ) -> None:
        early, on_time = itertools.tee(changes)
        self._announce, self._revoke = announce, revoke
        announcements: Schedule = (
            (max(0.0, at - LEAD_S), functools.partial(self._say, at, fields))
            for at, fields in early
        )
        actions: Schedule = ((at, functools.partial(apply, fields)) for at, fields in on_time)
        schedule = heapq.merge(announcements, actions, key=lambda each: each[0])
        super().__init__(schedule, **options)

    def _say(self, at_s: float, fields: Fields) -> None:
        assert self.epoch is not None
        self._announce(self.epoch + at_s, fields)

    def stop(self) -> None:
        """End it after the action that runs; what was announced and has not come is revoked."""
        try:
            super().stop()
        finally:
            self._revoke()
