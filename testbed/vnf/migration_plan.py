"""Pre-copy migration of a function, decided without doing any of it (sans I/O).

Events go in, commands come out; time is passed in.  Order (Clark et al., Live Migration of Virtual
Machines, NSDI 2005, applied to state instead of memory):

    prepare the target -> copy all while the source runs -> copy differences until they are small
    or stop shrinking -> pause the source -> copy the last difference and let the target run
    -> switch traffic -> destroy the source

Whatever fails or takes too long before traffic is switched: the target is given up and the source,
if it was paused, resumes.  After the switch there is no way back, and none is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto


class Phase(Enum):
    """Where a migration is."""

    NEW = auto()
    PREPARING = auto()
    COPYING = auto()
    PAUSING = auto()
    LAST = auto()
    SWITCHING = auto()
    ENDING = auto()
    MOVED = auto()
    UNDOING = auto()
    FAILED = auto()


# -- events: what happened -----------------------------------------------------------------------


@dataclass(frozen=True)
class Begin:
    """Somebody wants the migration."""


@dataclass(frozen=True)
class Ready:
    """The target runs the program and waits for state."""


@dataclass(frozen=True)
class Stored:
    """The target holds a round's difference; how many entries it told, how many were refused."""

    entries: int
    refused: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Paused:
    """The source forwards nothing any more."""


@dataclass(frozen=True)
class Switched:
    """Traffic goes to the target."""


@dataclass(frozen=True)
class Ended:
    """The source is gone; or, of an undone migration, the target is."""


@dataclass(frozen=True)
class Failed:
    """A command could not be carried out."""

    reason: str


@dataclass(frozen=True)
class Cancelled:
    """Somebody does not want the migration any more."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event = Begin | Ready | Stored | Paused | Switched | Ended | Failed | Cancelled | Tick

# -- commands: what is to be done ----------------------------------------------------------------


@dataclass(frozen=True)
class Prepare:
    """Have the target's platform instantiate the program.  Answered by Ready."""


@dataclass(frozen=True)
class Copy:
    """Take what changed since the last copy and have it stored.  Answered by Stored.

    The `last` one carries counters too, and lets the target run once it has stored everything.
    """

    number: int
    last: bool = False


@dataclass(frozen=True)
class Pause:
    """Stop the source from forwarding.  Answered by Paused."""


@dataclass(frozen=True)
class Switch:
    """Let traffic go to the target.  Answered by Switched."""


@dataclass(frozen=True)
class End:
    """The target is on its own, the source is to be destroyed.  Answered by Ended."""


@dataclass(frozen=True)
class Undo:
    """Resume the source if it was paused, and remove the target.  Answered by Ended."""

    resume: bool


Command = Prepare | Copy | Pause | Switch | End | Undo


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When copying ends, and how long anything may take."""

    rounds: int = 8  # copies before the source is paused, at most
    small: int = 32  # entries: a difference not worth another round
    shrinking: float = 0.7  # a round's difference against the one before, for there to be another
    step_s: float = 30.0  # preparing, or one copy while the source runs
    pause_s: float = 2.0  # from the pause until the target runs

    def enough(self, sizes: Sequence[int]) -> bool:
        """Is it time to pause, after rounds that told so many entries each?"""
        if len(sizes) >= self.rounds or sizes[-1] <= self.small:
            return True
        return len(sizes) > 2 and sizes[-1] > self.shrinking * sizes[-2]


class PreCopy:
    """The plan of one migration; `phase` says where it is, `failure` why it failed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.phase = Phase.NEW
        self.sizes: list[int] = []  # entries told in each round
        self.failure = ""
        self.deadline: float | None = None
        self._paused = False

    @property
    def over(self) -> bool:
        """Is there nothing left to do?"""
        return self.phase in (Phase.MOVED, Phase.FAILED)

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """What is to be done after `event`; events that come too late mean nothing."""
        if self.over:
            return []
        if isinstance(event, Failed):
            return self._fail(event.reason)
        if isinstance(event, Cancelled):
            return self._fail("it was cancelled")
        if isinstance(event, Tick):
            late = self.deadline is not None and now_s >= self.deadline
            return self._fail(self._late()) if late else []
        return self._go_on(event, now_s)

    def _go_on(self, event: Event, now_s: float) -> list[Command]:
        match self.phase, event:
            case Phase.NEW, Begin():
                return self._step(Phase.PREPARING, Prepare(), now_s + self._limits.step_s)
            case Phase.PREPARING, Ready():
                return self._copy(now_s)
            case Phase.COPYING | Phase.LAST, Stored(refused=refused) if refused:
                return self._fail(f"the target refused {refused} entries: {event.reason}")
            case Phase.COPYING, Stored():
                self.sizes.append(event.entries)
                if not self._limits.enough(self.sizes):
                    return self._copy(now_s)
                self._paused = True  # from when it is asked for, it may be
                return self._step(Phase.PAUSING, Pause(), now_s + self._limits.pause_s)
            case Phase.PAUSING, Paused():
                copy = Copy(len(self.sizes) + 1, last=True)
                return self._step(Phase.LAST, copy, self.deadline)
            case Phase.LAST, Stored():
                self.sizes.append(event.entries)
                return self._step(Phase.SWITCHING, Switch(), None)
            case Phase.SWITCHING, Switched():
                return self._step(Phase.ENDING, End(), now_s + self._limits.pause_s)
            case Phase.ENDING, Ended():
                self.phase = Phase.MOVED
            case Phase.UNDOING, Ended():
                self.phase = Phase.FAILED
        return []

    def _copy(self, now_s: float) -> list[Command]:
        copy = Copy(len(self.sizes) + 1)
        return self._step(Phase.COPYING, copy, now_s + self._limits.step_s)

    def _step(self, phase: Phase, command: Command, deadline: float | None) -> list[Command]:
        self.phase, self.deadline = phase, deadline
        return [command]

    def _late(self) -> str:
        if self._paused:
            return f"the target did not run within {self._limits.pause_s:g} s of the pause"
        return f"the target did not answer within {self._limits.step_s:g} s"

    def _fail(self, reason: str) -> list[Command]:
        """Undo, unless traffic has been switched; then what is left to do is to be done."""
        if self.phase is Phase.ENDING:
            self.phase, self.failure = Phase.MOVED, reason
            return []
        if self.phase is Phase.UNDOING:
            self.phase, self.failure = Phase.FAILED, f"{self.failure}; {reason}"
            return []
        self.failure = reason
        return self._step(Phase.UNDOING, Undo(resume=self._paused), None)
