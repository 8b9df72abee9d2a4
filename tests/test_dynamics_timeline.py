"""Timelines: their clock, their text and their TOML, without a network."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import ExperimentError, ParameterError, TopologyError, UserError
from testbed.links.player import Player
from testbed.network import schedule
from testbed.network.schedule import Step, step
from testbed.network.timeline import Timeline, moment


class FakeClock:
    """A clock that moves only when somebody waits, and then a little too far."""

    def __init__(self, late_s: float = 0.0) -> None:
        self.now = 100.0
        self._late_s = late_s

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds + self._late_s
        return False


def play(timeline: Timeline, clock: FakeClock) -> None:
    player = Player(timeline.schedule(100.0), epoch=100.0, clock=clock, wait=clock.wait)
    player.play()


def test_events_come_in_order_of_time_and_lateness_does_not_add_up() -> None:
    clock = FakeClock(late_s=0.01)
    timeline = Timeline(clock=clock)
    seen: list[Any] = []
    for when in (3, "500ms", 1.0, "2s"):
        timeline.at(when, lambda when=when: seen.append((when, round(clock.now - 100, 6))))
    timeline.at(1.0, seen.append, "the second of its time")
    play(timeline, clock)
    assert seen == [
        ("500ms", 0.51), (1.0, 1.01), "the second of its time", ("2s", 2.01), (3, 3.01)
    ]  # fmt: skip
    assert [event.planned_s for event in timeline.events] == [0.5, 1, 1, 2, 3]
    assert [round(event.began_s or 0, 6) for event in timeline.events] == [
        0.51, 1.01, 1.01, 2.01, 3.01
    ]  # fmt: skip
    assert timeline.ends_s == 3


def test_a_slow_action_delays_only_what_it_overlaps() -> None:
    clock = FakeClock()
    timeline = Timeline(clock=clock)
    timeline.at(1, clock.wait, 1.5)
    timeline.at(2, lambda: None)
    timeline.at(4, lambda: None)
    play(timeline, clock)
    assert [event.began_s for event in timeline.events] == [1, 2.5, 4]


def test_a_failing_action_is_named() -> None:
    timeline = Timeline()
    timeline.at(0, int, "x", base=10)
    timeline.at(0, pytest.fail, "must not come")
    timeline.start()
    with pytest.raises(ExperimentError, match=r"int\(x, base=10\): ValueError"):
        timeline.wait()
    with pytest.raises(ExperimentError, match="runs already"):
        timeline.at(9, int)


def test_leaving_a_block_waits_for_the_last_event_unless_it_failed() -> None:
    seen: list[int] = []
    timeline = Timeline()
    timeline.at("50ms", seen.append, 1)
    with timeline:
        pass
    assert seen == [1]
    late = Timeline()
    late.at(3600, seen.append, 2)
    with pytest.raises(KeyError), late:
        raise KeyError
    assert seen == [1]


class FakeRecord:
    def __init__(self, epoch: float) -> None:
        self.epoch = epoch
        self.events: list[dict[str, Any]] = []
        self.failure: BaseException | None = None
        self.deferred: list[Any] = []

    def event(self, kind: str, **data: Any) -> None:
        self.events.append({"kind": kind, **data})

    def fail(self, error: BaseException) -> None:
        self.failure = error

    def defer(self, clean_up: Any) -> None:
        self.deferred.append(clean_up)


def test_in_a_trial_events_are_recorded_and_failures_end_it() -> None:
    async def trial(*actions: Any) -> FakeRecord:
        timeline = Timeline()
        record = FakeRecord(timeline._clock())
        for number, action in enumerate(actions):
            timeline.at(0.01 * number, action)
        await timeline.follow(record)  # type: ignore[arg-type]
        for clean_up in record.deferred:
            await clean_up()
        return record

    record = asyncio.run(trial(list, dict))
    assert [event["name"] for event in record.events] == ["list()", "dict()"]
    assert all(event["began_s"] >= event["planned_s"] for event in record.events)
    assert record.failure is None
    record = asyncio.run(trial(list, {}.popitem, dict))
    assert isinstance(record.failure, ExperimentError)
    assert "popitem()" in str(record.failure)
    assert len(record.events) == 1


# -- text ------------------------------------------------------------------------------------------

READ = [
    ("2s link h1 s1 down", Step(2, "link", ("h1", "s1"), "down")),
    ("0 link h1-eth0 up", Step(0, "link", ("h1-eth0",), "up")),
    ("500ms link down up cut", Step(0.5, "link", ("down", "up"), "cut")),
    (
        "1.5 link h1 s1 update bw=5 delay=30ms from=h1",
        Step(1.5, "link", ("h1", "s1"), "update", {"bw": 5, "delay": "30ms", "from": "h1"}),
    ),
    (
        "4s link h1 s1 replay lte.csv loop=yes scale=0.5",
        Step(4, "link", ("h1", "s1"), "replay", {"trace": "lte.csv", "loop": True, "scale": 0.5}),
    ),
    ("4s link h1 s1 replay stop", Step(4, "link", ("h1", "s1"), "replay", {"trace": "stop"})),
    ("5s node r1 freeze", Step(5, "node", ("r1",), "freeze")),
    ("6s partition h1 r1 | h2|h3 h4", Step(6, "partition", (("h1", "r1"), ("h2",), ("h3", "h4")))),
    ("8s heal", Step(8, "heal")),
]


@pytest.mark.parametrize(("line", "expected"), READ)
def test_lines_are_read(line: str, expected: Step) -> None:
    assert step(line) == expected


REFUSED = [
    ("soon link h1 s1 down", "'soon' is not a time"),
    ("-1s heal", "'-1s' is not a time"),
    ("2s", "cannot be read"),
    ("2s link", "nothing is said to happen"),
    ("2s link h1 s1", "nothing is said to happen"),
    ("2s link h1 s1 explode", "nothing is said to happen"),
    ("2s link h1 s1 down now", "'now' is no value"),
    ("2s link h1 s1 down bw=5", "down takes no 'bw'"),
    ("2s link h1 s1 update", "update changes nothing"),
    ("2s link h1 s1 update from=h1", "update changes nothing"),
    ("2s link h1 s1 update bw=", "'bw=' is no value"),
    ("2s link h1 s1 update bw=1 bw=2", "'bw=2' is no value"),
    ("2s link h1 s1 replay", "write replay FILE"),
    ("2s link h1 s1 replay a.csv speed=2", "speed"),
    ("2s node r1", "cannot be read"),
    ("2s node r1 explode", "node has no 'explode'"),
    ("2s heal now", "cannot be read"),
    ("2s boom", "cannot be read"),
]


@pytest.mark.parametrize(("line", "message"), REFUSED)
def test_what_cannot_be_meant_is_refused_with_its_line(line: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        schedule.parse(["# a comment", "", line], FakeNet())
    assert caught.value.message.startswith(f"line 3, {line!r}: ")


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        timeline = schedule.parse(text, FakeNet())
    except UserError:
        return
    assert all(event.planned_s >= 0 for event in timeline.events)


WORDS = "2s 0 link node partition heal h1 s1 h1-s1 down update replay bw=5 from=h1 | freeze x"
words = st.sampled_from(WORDS.split(" "))


def complaint(line: str) -> str:
    try:
        schedule.parse([line], FakeNet())
    except UserError as error:
        return error.message
    return ""


@settings(deadline=None)
@given(st.lists(words, max_size=8).map(" ".join))
def test_any_words_are_read_or_refused_by_line(line: str) -> None:
    assert not (said := complaint(line)) or said.startswith("line 1, ")


@pytest.mark.parametrize(("text", "expected"), [("2", 2), ("2s", 2), ("1500us", 0.0015), (3, 3)])
def test_moments(text: Any, expected: float) -> None:
    assert moment(text) == pytest.approx(expected)


# -- bound to a network ----------------------------------------------------------------------------


class FakeThing:
    """A node, an interface, or a link that notes what is done to it."""

    def __init__(self, name: str, done: list[Any]) -> None:
        self.name = name
        self._done = done

    def __str__(self) -> str:
        return self.name

    def changed(self, **changes: Any) -> None:
        if "delya" in changes:
            raise ParameterError("a link has no 'delya'")

    def __getattr__(self, verb: str) -> Any:
        if verb not in ("down", "up", "cut", "mend", "update", "freeze", "kill", "stop_replay"):
            raise AttributeError(verb)
        return lambda **values: self._done.append((self.name, verb, values))


class FakeNet:
    def __init__(self) -> None:
        self.done: list[Any] = []
        self.nodes = {name: FakeThing(name, self.done) for name in ("h1", "h2", "s1", "down", "up")}
        self.links = [self._link("h1", "s1"), self._link("h2", "s1"), self._link("down", "up")]

    def _link(self, first: str, second: str) -> Any:
        link = FakeThing(f"{first}--{second}", self.done)
        for side, name in ((1, first), (2, second)):
            intf = FakeThing(f"{name}-eth{second}", self.done)
            intf.node = self.nodes[name]  # type: ignore[attr-defined]
            setattr(link, f"intf{side}", intf)
        return link

    def __contains__(self, name: object) -> bool:
        return name in self.nodes

    def __iter__(self) -> Any:
        return iter(self.nodes)

    def __getitem__(self, name: str) -> FakeThing:
        return self.nodes[name]

    def linksBetween(self, first: FakeThing, second: FakeThing) -> list[Any]:  # noqa: N802
        ends = {first.name, second.name}
        return [link for link in self.links if set(link.name.split("--")) == ends]

    def partition(self, *groups: Any) -> None:
        self.done.append(("partition", groups))

    def heal(self) -> None:
        self.done.append(("heal",))


DONE = [
    ("h1--s1", "down", {}),
    ("h1--s1", "update", {"params2": {"bw": 5}}),
    ("h2--s1", "stop_replay", {}),
    ("h1", "freeze", {}),
    ("partition", (("h1",), ("h2", "s1"))),
    ("heal",),
]

LINES = """
2s link h1 s1 down
2s link s1 h1 update bw=5 from=s1
3s link h2-eths1 replay stop     # by an interface
4s node h1 freeze
5s partition h1 | h2 s1
6s heal
"""

TOML = """
[[event]]
at = "2s"
link = "h1-s1"
do = "down"
[[event]]
at = 2
link = "h1-s1"
update = {bw = 5}
from = "s1"
[[event]]
at = "3s"
link = "h2-s1"
replay = "stop"
[[event]]
at = "4s"
node = "h1"
do = "freeze"
[[event]]
at = "5s"
partition = [["h1"], ["h2", "s1"]]
[[event]]
at = "6s"
heal = true
"""


@pytest.mark.parametrize(("read", "text"), [(schedule.parse, LINES), (schedule.parse_toml, TOML)])
def test_lines_and_toml_do_the_same(read: Any, text: str) -> None:
    net = FakeNet()
    for event in read(text, net).events:
        event.action()
    assert net.done == DONE


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2s link h1 h2 down", "no links between h1 and h2"),
        ("2s link h9 down", "no link 'h9'"),
        ("2s link h1 h9 down", "no node 'h9'"),
        ("2s node h9 kill", "no node 'h9'"),
        ("2s partition h1 | h9", "no node 'h9'"),
        ("2s link h1 s1 update delya=5", "no 'delya'"),
        ("2s link h1 s1 update bw=5 from=h2", "no end of link"),
        ("2s link h1 s1 replay /no/such/file", "/no/such/file"),
    ],
)
def test_what_is_not_there_is_said_before_anything_happens(line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        schedule.parse([line], FakeNet())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[event]]\nlink = 'h1-s1'\ndo = 'down'", "event 1: it has no time"),
        ("[[event]]\nat = '1s'", "event 1: it is about"),
        ("[[event]]\nat = '1s'\nlink = 'h1-s1'", "has"),
        ("[[event]]\nat = '1s'\nlink = 'h1-s1'\nupdate = 5", "update is 5"),
        ("[[event]]\nat = '1s'\nheal = true\nbw = 5", "heal takes no 'bw'"),
        ("[[event]]\nat = '1s'\npartition = 'h1'", "partition is 'h1'"),
        ("[event]\nat = '1s'", "begin events"),
        ("[[events]]\nat = '1s'", "no 'events'"),
        ("at =", "not TOML"),
    ],
)
def test_bad_toml_is_refused(text: str, message: str) -> None:
    with pytest.raises((ParameterError, TopologyError), match=message):
        schedule.parse_toml(text, FakeNet())
