"""How an old subflow is taken out of use, once data has another way: the last part of `machine`.

    demoting    MP_PRIO both ways, again with fresh numbers, until payload no longer passes and
                all that did has been acknowledged (RFC 8684 3.3.8)
    blocking    the box is about to drop what either end sends; until it does, all can be undone
    resetting   RST both ways, several times, because one may be lost; an end that expects
                another number answers with the one it expects (RFC 5961 3.2), and an end that
                still sends tells it too: the block answers both
    over

A REMOVE_ADDR would be simpler.  Nobody signs it, and the kernel's answer to one for the first
subflow's address is to close both subflows, so none is ever sent.
"""

from __future__ import annotations

import math
from enum import Enum

from testbed.mptcp.options import MpPrio
from testbed.mptcp.redirection.messages import (
    Block,
    Command,
    Direction,
    Inject,
    TearDown,
)
from testbed.mptcp.redirection.tracking import Tracking

_ROUND_TRIP_S = 0.1  # while none has been measured
_SHORTEST_QUIET_S, _LONGEST_DRAIN_S = 0.03, 3.0
_DEMOTIONS, _RESETS = 6, 3
_BACK_OFF = 1.5
_ANSWER_S = 2.0  # the longest wait for the block
_SETTLING_S = 0.005  # what was forwarded before the block has been sampled by then
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.2


class Phase(Enum):
    """Where the tear-down stands."""

    DEMOTING = "demoting"
    BLOCKING = "blocking"
    RESETTING = "resetting"
    OVER = "over"


class Retirement:
    """The tear-down of one subflow: begins when it is made, `deadline` says when to `tick`.

    `failure` is set when it cannot go on; the old subflow works then as before, demoted perhaps.
    """

    def __init__(self, kind: TearDown, tracking: Tracking, now_s: float) -> None:
        self.phase = Phase.BLOCKING if kind is TearDown.RST else Phase.DEMOTING
        self.failure = ""
        self.demoted = kind is not TearDown.RST
        self._kind, self._tracking = kind, tracking
        self._began_s = self._now_s = self._next_s = now_s
        self._rounds = 0

    @property
    def irrevocable(self) -> bool:
        """Has the old subflow been blocked?"""
        return self.phase is Phase.RESETTING

    @property
    def deadline(self) -> float:
        """When `tick` has something to do, s."""
        if self.phase is Phase.OVER:
            return math.inf
        if self.phase is not Phase.DEMOTING:
            return self._next_s
        again_s = self._next_s if self._rounds < _DEMOTIONS else math.inf
        quiet_s = self._quiet_at_s if self._quiet_at_s > self._now_s else math.inf
        return min(again_s, quiet_s, self._began_s + _LONGEST_DRAIN_S)

    def begin(self) -> list[Command]:
        """The first commands."""
        return self.tick(self._now_s) if self.phase is Phase.DEMOTING else self._block()

    def tick(self, now_s: float) -> list[Command]:
        """What is due."""
        self._now_s = now_s
        match self.phase:
            case Phase.DEMOTING:
                return self._demote()
            case Phase.BLOCKING if now_s >= self._next_s:
                self.failure = "no answer to the request to block the old subflow"
            case Phase.RESETTING if now_s >= self._next_s:
                return self._reset()
        return []

    def sampled(self, now_s: float) -> list[Command]:
        """A segment of the old subflow passed, and has been tracked."""
        self._now_s = now_s
        return self._demote() if self.phase is Phase.DEMOTING else []

    def blocked(self, now_s: float) -> None:
        """The block is in place."""
        if self.phase is Phase.BLOCKING:
            self.phase = Phase.RESETTING
            self._rounds, self._next_s = 0, now_s + _SETTLING_S

    def restore(self) -> list[Inject]:
        """Take the demotion back; sent twice, because nothing confirms it."""
        return 2 * self._priorities(backup=False) if self.demoted else []

    # -- MP_PRIO ---------------------------------------------------------------------------------

    @property
    def _round_trip_s(self) -> float:
        round_trip_s = self._tracking.round_trip_s(*Direction)
        return _ROUND_TRIP_S if round_trip_s is None else round_trip_s

    @property
    def _quiet_at_s(self) -> float:
        last_s = max(self._began_s, self._tracking.last_payload_s or self._began_s)
        return last_s + max(_SHORTEST_QUIET_S, self._round_trip_s)

    def _demote(self) -> list[Command]:
        late = self._now_s >= self._began_s + _LONGEST_DRAIN_S
        if late or (self._now_s >= self._quiet_at_s and self._tracking.drained):
            return self._demoted(quiet=not late)
        if self._now_s < self._next_s or self._rounds >= _DEMOTIONS:
            return []
        pause_s = max(_SHORTEST_QUIET_S, self._round_trip_s) * _BACK_OFF**self._rounds
        self._rounds += 1
        self._next_s = self._now_s + pause_s
        return list(self._priorities(backup=True))

    def _demoted(self, *, quiet: bool) -> list[Command]:
        if self._kind is TearDown.BOTH:
            return self._block()
        if quiet:
            self.phase = Phase.OVER
        else:
            self.failure = "the ends went on using the old subflow"
        return []

    def _priorities(self, *, backup: bool) -> list[Inject]:
        return [
            self._tracking.acknowledgement(direction, [MpPrio(backup)])
            for direction in Direction
            if self._tracking.ready(direction)
        ]

    # -- RST -------------------------------------------------------------------------------------

    def _block(self) -> list[Command]:
        self.phase = Phase.BLOCKING
        self._next_s = self._now_s + _ANSWER_S
        return [Block()]

    @property
    def _pause_s(self) -> float:
        return min(max(self._round_trip_s / 2, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)

    def _reset(self) -> list[Command]:
        if self._rounds >= _RESETS:
            self.phase = Phase.OVER
            return []
        self._rounds += 1
        self._next_s = self._now_s + self._pause_s
        return [
            self._tracking.reset(direction, number)
            for direction in Direction
            for number in self._tracking.expected(direction)
        ]
