"""The end of a redirection: what was installed is removed, and the outcome told: part of `machine`.

A removal that fails is tried again a few times; what cannot be removed is named in the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from testbed.mptcp.redirection.messages import Command, Done, Event, Failed, Outcome, Tick

_MOST_TRIES = 3
_RETRY_S, _ANSWER_S = 0.05, 2.0


class Clearing:
    """Waits until every one of `undo`, which have been asked for, is done or given up."""

    def __init__(
        self, outcome: Outcome, reason: str, undo: Sequence[Command], now_s: float
    ) -> None:
        self.outcome, self.reason = outcome, reason
        self._tries = dict.fromkeys(undo, 1)
        self._due_s = dict.fromkeys(undo, now_s + _ANSWER_S)
        self._failures: dict[Command, str] = {}

    @property
    def over(self) -> bool:
        """Is nothing left to wait for?"""
        return not self._due_s

    @property
    def deadline(self) -> float:
        """When the next removal is tried again or given up, s."""
        return min(self._due_s.values())

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Removals to try again now."""
        match event:
            case Done(command):
                self._due_s.pop(command, None)
            case Failed(command, reason) if command in self._due_s:
                self._failures[command] = reason
                self._due_s[command] = now_s + _RETRY_S
            case Tick():
                due = [command for command, due_s in self._due_s.items() if now_s >= due_s]
                return [command for command in due if self._again(command, now_s)]
        return []

    def _again(self, command: Command, now_s: float) -> bool:
        if self._tries[command] < _MOST_TRIES:
            self._tries[command] += 1
            self._due_s[command] = now_s + _ANSWER_S
            return True
        del self._due_s[command]
        failure = self._failures.get(command, "no answer")
        self.reason += f"; {type(command).__name__} failed ({failure})"
        return False
