"""Whatever happens to a redirection, in whatever order: what it must keep true.

A world of make-believe takes the machine's commands literally.  Each may be carried out and
answered, at once or later, carried out and never answered, or fail.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from redirection_play import (
    ANSWERED,
    HOP,
    KEYS,
    echo,
    from_client,
    from_server,
)

from testbed.mptcp.options import AddAddr, MpPrio, RemoveAddr
from testbed.mptcp.redirection.machine import Redirection, State
from testbed.mptcp.redirection.messages import (
    Abort,
    Block,
    Closed,
    Command,
    Direction,
    Done,
    Event,
    Failed,
    Finished,
    Inject,
    Join,
    JoinSeen,
    Outcome,
    Refused,
    Rewrite,
    Sample,
    TearDown,
    Tick,
    Unblock,
    Unrewrite,
    Unsample,
)
from testbed.mptcp.redirection.segment import Flags

_LONGEST_S = 40.0  # time-out, tear-down and three tries of each removal together
_INSTALLS = {Unsample: Sample, Unrewrite: Rewrite, Unblock: Block}
SOCKET_DIED = Failed(Sample(), "the socket died")
_ANSWERS = ("done", "late", "never", "failed")


class World:
    """Does what one machine asks for, and knows what is installed."""

    def __init__(self, tear_down: TearDown, answers: list[str]) -> None:
        self.machine = Redirection(KEYS, HOP, tear_down=tear_down)
        self.now_s = 0.0
        self.log: list[Command] = []
        self.installed: set[type] = set()
        self.confirmed = self.reset = False
        self.demoted: set[Direction] = set()
        self._answers = iter(answers)
        self._events: deque[Event] = deque()
        self._late: list[Event] = []
        self._countdown, self._interruption = 0, None

    def interrupt_in(self, moment: int, interruption: Event) -> None:
        """Have `interruption` happen right after the event of this number."""
        self._countdown, self._interruption = moment, interruption

    @property
    def uninterrupted(self) -> bool:
        """Was it over before the moment came?"""
        return self._countdown > 0

    def start(self) -> None:
        self._do(self.machine.start(self.now_s))
        self.tell()

    def tell(self, *events: Event) -> None:
        self._events.extend(events)
        while self._events:
            told = self._events.popleft()
            self._countdown -= 1
            if self._countdown == 0 and self._interruption is not None:
                self._events.appendleft(self._interruption)
            if told == JoinSeen(Join.CONFIRMED):
                self.confirmed = True
            elif told == SOCKET_DIED:
                self.installed.discard(Sample)
            self._do(self.machine.handle(told, self.now_s))
        self._check()

    def answer_late(self) -> None:
        late, self._late = self._late, []
        self.tell(*late)

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            assert not (self.log and isinstance(self.log[-1], Finished)), "after the end"
            self.log.append(command)
            answer = next(self._answers, "done")
            if isinstance(command, Inject):
                self._inject(command, answer)
            elif answer == "failed" and not isinstance(command, Finished):
                self._events.append(Failed(command, "no"))
            else:
                self._carry_out(command, answer)

    def _inject(self, command: Inject, answer: str) -> None:
        if answer == "failed":
            self._events.append(Failed(command, "no"))
            return
        segment = command.segment
        assert segment.build()
        assert segment.option(RemoveAddr) is None
        if segment.flags & Flags.RST:
            assert Block in self.installed, "reset before it was blocked"
            self.reset = True
        elif segment.option(AddAddr) is not None:
            assert Rewrite in self.installed, "announced an address that leads nowhere"
        else:
            priority = segment.option(MpPrio)
            assert priority is not None
            change = self.demoted.add if priority.backup else self.demoted.discard
            change(command.direction)

    def _carry_out(self, command: Command, answer: str) -> None:
        if type(command) in _INSTALLS:
            self.installed.discard(_INSTALLS[type(command)])
        else:
            self.installed.add(type(command))
        if isinstance(command, ANSWERED) and answer != "never":
            (self._events if answer == "done" else self._late).append(Done(command))

    def _check(self) -> None:
        if self.machine.state not in (State.UNDOING, State.FINISHED):
            return
        finished = self.log[-1] if isinstance(self.log[-1], Finished) else None
        if finished is not None and finished.outcome is not Outcome.REDIRECTED:
            assert not self.reset
            left = {kind for kind in _INSTALLS.values() if kind in self.installed}
            assert all(f"Un{kind.__name__.lower()} failed" in finished.reason for kind in left)
        elif finished is not None:
            assert self.confirmed
            assert Rewrite in self.installed
            assert Sample not in self.installed or "Unsample failed" in finished.reason

    def end(self) -> Finished:
        """Let time pass, deadline by deadline."""
        began_s, ticks = self.now_s, 0
        while self.machine.state is not State.FINISHED:
            self.now_s = max(self.now_s, self.machine.deadline)
            ticks += 1
            assert self.now_s - began_s < _LONGEST_S
            assert ticks < 500, "it is busy without getting anywhere"
            self.tell(Tick())
        self.answer_late()
        self.tell(Tick(), *HAPPENINGS)
        finished = self.log[-1]
        assert isinstance(finished, Finished)
        return finished


@dataclass(frozen=True)
class Late:
    """All answers that were held back arrive."""


COURSE = [
    from_client(stamps=(7, 70)),
    from_server(stamps=(70, 7)),
    echo(),
    *map(JoinSeen, Join),
]
HAPPENINGS = [
    *COURSE,
    from_client(200, 9100, length=50),
    from_server(9100, 250, length=900, stamps=(80, 9)),
    from_client(flags=Flags.ACK | Flags.FIN),
    from_server(flags=Flags.RST),
    Refused(),
    Closed("it ended"),
    Abort("enough"),
    SOCKET_DIED,
    Tick(),
]
events = st.sampled_from([*HAPPENINGS, Late(), Late(), Late()])
pauses = st.sampled_from([0.0, 0.0, 0.001, 0.02, 0.3, 2.0])
steps = st.tuples(events, pauses)
answers = st.lists(st.sampled_from(_ANSWERS[:1] * 5 + _ANSWERS), max_size=20)


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[Event | Late, float]]:
    """Part of the ordinary course, with other things in between and after."""
    until = draw(st.integers(0, len(COURSE)))
    story: list[tuple[Event | Late, float]] = []
    for step in COURSE[:until]:
        story += draw(st.lists(steps, max_size=1))
        story.append((step, draw(pauses)))
    return story + draw(st.lists(steps, max_size=12))


def tell(story: list[tuple[Event | Late, float]], world: World) -> Finished:
    world.start()
    for happening, pause_s in story:
        if isinstance(happening, Late):
            world.answer_late()
        else:
            world.tell(happening)
        world.now_s += pause_s
        if world.machine.deadline <= world.now_s:
            world.tell(Tick())
    return world.end()


@settings(max_examples=200, deadline=None)
@given(stories(), st.sampled_from(TearDown), answers)
@example([(step, 0.0) for step in COURSE], TearDown.BOTH, [])
@example([(step, 0.0) for step in COURSE], TearDown.RST, ["done"] * 3 + ["never"])
def test_it_keeps_its_promises_and_does_the_same_again(
    story: list[tuple[Event | Late, float]], tear_down: TearDown, given_answers: list[str]
) -> None:
    worlds = [World(tear_down, given_answers) for _ in range(2)]
    first, second = (tell(story, world) for world in worlds)
    event(first.outcome.name)
    assert first == second
    assert worlds[0].log == worlds[1].log
    assert worlds[0].now_s == worlds[1].now_s


def test_every_course_that_is_let_alone_redirects() -> None:
    for tear_down in TearDown:
        world = World(tear_down, [])
        assert tell([(step, 0.01) for step in COURSE], world).outcome is Outcome.REDIRECTED
        assert (Block in world.installed) == world.reset == (tear_down is not TearDown.MP_PRIO)


@pytest.mark.parametrize("tear_down", list(TearDown))
@pytest.mark.parametrize(
    "ending", [Abort("enough"), Refused(), Closed("it ended"), SOCKET_DIED], ids=repr
)
def test_an_end_at_any_moment_leaves_no_demotion(tear_down: TearDown, ending: Event) -> None:
    outcomes = set()
    for moment in itertools.count(1):
        world = World(tear_down, [])
        world.interrupt_in(moment, ending)
        finished = tell([(step, 0.0) for step in COURSE], world)
        outcomes.add(finished.outcome)
        if finished.outcome is not Outcome.REDIRECTED:
            assert not world.demoted
        if world.uninterrupted:
            break
    assert outcomes > {Outcome.REDIRECTED}


def test_each_command_failing_in_turn_never_breaks_the_connection() -> None:
    for tear_down in TearDown:
        orderly = World(tear_down, [])
        tell([(step, 0.0) for step in COURSE], orderly)
        for failing in range(len(orderly.log) - 1):
            world = World(tear_down, ["done"] * failing + ["failed"])
            finished = tell([(step, 0.0) for step in COURSE], world)
            broken = isinstance(orderly.log[failing], (Sample, Rewrite, Block))
            assert (finished.outcome is Outcome.FAILED) == broken
