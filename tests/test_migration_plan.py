"""The plan of a migration: playbooks of events and commands, and what holds whatever happens."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.vnf.migration_plan import (
    Begin,
    Cancelled,
    Command,
    Copy,
    End,
    Ended,
    Event,
    Failed,
    Limits,
    Pause,
    Paused,
    Phase,
    PreCopy,
    Prepare,
    Ready,
    Stored,
    Switch,
    Switched,
    Tick,
    Undo,
)

LIMITS = Limits(rounds=4, small=10, shrinking=0.7, step_s=30.0, pause_s=2.0)


def play(plan: PreCopy, *events: Event, now_s: float = 0.0) -> list[Command]:
    return [command for event in events for command in plan.handle(event, now_s)]


def test_what_is_small_is_copied_once_and_then_the_difference() -> None:
    plan = PreCopy(LIMITS)
    assert play(plan, Begin()) == [Prepare()]
    assert play(plan, Ready()) == [Copy(1)]
    assert play(plan, Stored(5)) == [Pause()]
    assert play(plan, Paused()) == [Copy(2, last=True)]
    assert play(plan, Stored(1)) == [Switch()]
    assert play(plan, Switched()) == [End()]
    assert play(plan, Ended()) == []
    assert (plan.phase, plan.sizes) == (Phase.MOVED, [5, 1])


def test_rounds_go_on_while_they_shrink() -> None:
    plan = PreCopy(LIMITS)
    play(plan, Begin(), Ready())
    assert play(plan, Stored(1000)) == [Copy(2)]
    assert play(plan, Stored(100)) == [Copy(3)]
    assert play(plan, Stored(9)) == [Pause()]


def test_rounds_end_when_they_do_not_shrink() -> None:
    plan = PreCopy(LIMITS)
    play(plan, Begin(), Ready(), Stored(1000))
    assert play(plan, Stored(500)) == [Copy(3)]
    assert play(plan, Stored(400)) == [Pause()]


def test_rounds_end_when_there_were_enough() -> None:
    plan = PreCopy(LIMITS)
    play(plan, Begin(), Ready(), Stored(100000), Stored(10000), Stored(1000))
    assert play(plan, Stored(100)) == [Pause()]


def test_a_refused_entry_leaves_the_source_as_it_is() -> None:
    plan = PreCopy(LIMITS)
    play(plan, Begin(), Ready())
    assert play(plan, Stored(1000, 3, "Cannot allocate memory")) == [Undo(resume=False)]
    assert play(plan, Ended()) == []
    assert plan.phase is Phase.FAILED
    assert plan.failure == "the target refused 3 entries: Cannot allocate memory"


def test_a_target_that_takes_too_long_ends_the_pause() -> None:
    plan = PreCopy(LIMITS)
    play(plan, Begin(), Ready(), Stored(1))
    play(plan, Paused(), now_s=10.0)
    assert plan.handle(Tick(), 1.9) == []
    assert plan.handle(Tick(), 2.0) == [Undo(resume=True)]
    assert plan.failure == "the target did not run within 2 s of the pause"


def test_what_fails_after_the_switch_undoes_nothing() -> None:
    plan = PreCopy(LIMITS)
    play(plan, Begin(), Ready(), Stored(1), Paused(), Stored(0), Switched())
    assert play(plan, Failed("no answer")) == []
    assert (plan.phase, plan.failure) == (Phase.MOVED, "no answer")


def test_a_failure_of_undoing_is_told_with_the_first_one() -> None:
    plan = PreCopy(LIMITS)
    play(plan, Begin(), Ready(), Failed("gone"))
    play(plan, Failed("cannot resume"))
    assert (plan.phase, plan.failure) == (Phase.FAILED, "gone; cannot resume")


ANSWERS: dict[type, st.SearchStrategy[Event]] = {
    Prepare: st.just(Ready()),
    Copy: st.builds(Stored, st.integers(0, 2000), st.sampled_from([0, 0, 0, 1])),
    Pause: st.just(Paused()),
    Switch: st.just(Switched()),
    End: st.just(Ended()),
    Undo: st.just(Ended()),
}
DISTURBANCES = st.sampled_from([Failed("broken"), Cancelled(), Tick()])


@given(st.data())
@settings(deadline=None)
def test_whatever_happens_exactly_one_forwards_in_the_end(data: st.DataObject) -> None:
    """A model of source and target that does what commands say, and may be disturbed anywhere."""
    plan, now_s = PreCopy(LIMITS), 0.0
    source, target, traffic = "forwards", "absent", "source"
    waiting = plan.handle(Begin(), now_s)
    done = 0
    while waiting:
        command = waiting.pop()
        done += 1
        assert done < 20
        now_s += data.draw(st.sampled_from([0.01, 0.01, 0.01, 1.5, 40.0]))
        disturbed = data.draw(st.integers(0, 9)) == 0
        # what is disturbed may have been done, or not
        if not disturbed or data.draw(st.booleans()):
            match command:
                case Prepare():
                    target = "waits"
                case Pause():
                    source = "paused"
                case Copy(last=True):
                    target = "forwards"
                case Switch() if not disturbed:
                    assert (source, target) == ("paused", "forwards")
                    traffic = "target"
                case End():
                    source = "gone"
                case Undo(resume=resume):
                    assert traffic == "source"
                    source, target = "forwards" if resume else source, "absent"
        answer = DISTURBANCES if disturbed else ANSWERS[type(command)]
        event = data.draw(answer)
        if isinstance(event, Tick):
            now_s += 100.0
        waiting = plan.handle(event, now_s) or ([] if plan.over else [command])
    assert plan.over
    if plan.phase is Phase.MOVED:
        assert (traffic, target) == ("target", "forwards")
    elif "broken" not in plan.failure.split("; ")[1:]:
        assert traffic == "source"


def test_nothing_follows_the_end() -> None:
    plan = PreCopy(LIMITS)
    play(plan, Begin(), Failed("no"), Ended())
    assert play(plan, Ready(), Tick(), Cancelled()) == []
