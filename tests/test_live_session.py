"""What a player decides: playlists, bitrates, what to fetch, where the picture is; without I/O."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_play import KEY, LADDER, OTHER, Playbook

from testbed.errors import ExperimentError, ParameterError
from traffic.live.ladder import Ladder, Rung, command_line
from traffic.live.player.adaptation import BufferBased
from traffic.live.player.frames import Frames
from traffic.live.player.mpegts import AccessUnit
from traffic.live.player.playlist import PlaylistError, parse_master, parse_media
from traffic.live.player.session import Session, Settings, UnexpectedAnswer
from traffic.live.stream import MASTER, Stream
from traffic.web.http import request

RATES = [LADDER.average(rung) for rung in LADDER.rungs]

# -- playlists -----------------------------------------------------------------------------------


def test_a_master_playlist_has_variants_by_bitrate() -> None:
    text = """#EXTM3U
#EXT-X-STREAM-INF:RESOLUTION=480x270,BANDWIDTH=660000,AVERAGE-BANDWIDTH=600000,CODECS="avc1.42c015,x=1"
high/index.m3u8

#EXT-X-STREAM-INF:BANDWIDTH=88000
/low.m3u8
"""
    low, high = parse_master(text, "/a/live.m3u8")
    assert (low.rate, low.path) == (88e3, "/low.m3u8")
    assert (high.rate, high.path) == (600e3, "/a/high/index.m3u8")


def test_a_media_playlist_numbers_its_segments() -> None:
    text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:2.0,\n7.ts\n"
    playlist = parse_media(text + "#EXTINF:1.5,title\n8.ts\n#EXT-X-ENDLIST\n", "/0/index.m3u8")
    assert (playlist.first, playlist.last, playlist.ended) == (7, 8, True)
    assert playlist.segment(8).path == "/0/8.ts"
    assert playlist.seconds_from(8) == 1.5
    assert playlist.seconds_from(9) == 0
    assert [playlist.behind_end(s) for s in (1, 1.5, 2, 3.5, 9)] == [8, 8, 7, 7, 7]


@pytest.mark.parametrize(
    "text",
    [
        "", "<html>", "#EXTM3U\n", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:x\n#EXTINF:1,\na.ts\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:nan,\na.ts\n",
    ],
)  # fmt: skip
def test_what_is_no_playlist_is_said(text: str) -> None:
    with pytest.raises(PlaylistError):
        parse_media(text, "/x.m3u8")
    with pytest.raises(PlaylistError):
        parse_master(text, "/x.m3u8")


def test_the_servers_playlists_are_read_as_they_are_meant() -> None:
    stream = Stream(LADDER, window_s=5)
    for number in range(9):
        done = [stream.add(rung, number, number, number + 1, b"x") for rung in range(3)]
        assert done == [False, False, True]
    master = stream.answer(request("GET", MASTER, "x"))
    variants = parse_master(master.body.decode(), MASTER)
    assert [variant.rate for variant in variants] == RATES
    media = stream.answer(request("GET", variants[2].path, "x"))
    playlist = parse_media(media.body.decode(), variants[2].path)
    assert (playlist.first, playlist.last) == (4, 8)
    assert stream.live_edge_s == 9
    for number, status in ((8, 200), (4, 200), (9, 404)):
        assert stream.answer(request("GET", f"/2/{number}.ts", "x")).status == status
    for path in ("/", "/3/index.m3u8", "/x/index.m3u8", "/0/x.ts", "/0/1.mp4", "/../0/1.ts"):
        assert stream.answer(request("GET", path, "x")).status == 404


def test_a_segment_that_is_lacking_is_no_stream() -> None:
    stream = Stream(Ladder((Rung(2, 2, 1.0),)))
    stream.add(0, 0, 0, 1, b"")
    with pytest.raises(ExperimentError, match="segment 2 follows 0"):
        stream.add(0, 2, 2, 3, b"")


def test_ladders_are_written_and_read() -> None:
    assert Ladder.parse(str(Ladder())) == Ladder()
    assert Ladder.parse("320x180:1.5M").rungs == (Rung(320, 180, 1.5e6),)
    assert "testsrc2=size=320x180:rate=10" in command_line(Ladder.parse("320x180:1M", 10))


@pytest.mark.parametrize(
    "text", ["", "320x180", "321x180:1M", "320x180:0", "320x180:1M,160x90:1M", "axb:1"]
)
def test_ladders_that_cannot_be_coded_are_refused(text: str) -> None:
    with pytest.raises(ParameterError):
        Ladder.parse(text)


# -- bitrates and pictures -----------------------------------------------------------------------


def test_the_bitrate_follows_the_buffer() -> None:
    adaptation = BufferBased([100, 400, 1600], reservoir_s=2, cushion_s=4)
    assert [adaptation.choose(buffer) for buffer in (0, 2, 2.5, 2.9, 5, 6, 9)] == [
        0,
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    # down only when the line has come down to the next lower rate
    assert [adaptation.choose(buffer) for buffer in (5, 3, 2.75, 2.2, 2, 0)] == [2, 2, 1, 1, 0, 0]


def test_no_segment_is_asked_for_that_outlasts_the_buffer() -> None:
    adaptation = BufferBased([100, 400, 1600], reservoir_s=2, cushion_s=4)
    assert adaptation.choose(6, segment_s=1, throughput=400) == 2  # 4 s of 6
    assert adaptation.choose(6, segment_s=1, throughput=350) == 1
    assert adaptation.choose(6, segment_s=2, throughput=200) == 1
    assert adaptation.choose(6, segment_s=2, throughput=1) == 0


@given(st.lists(st.floats(0, 20), max_size=50))
def test_the_bitrate_is_lowest_in_the_reservoir_and_highest_above_the_cushion(
    buffers: list[float],
) -> None:
    adaptation = BufferBased([1, 2, 3, 9], reservoir_s=3, cushion_s=5)
    for buffer in buffers:
        chosen = adaptation.choose(buffer)
        assert 0 <= chosen <= 3
        assert buffer > 3 or chosen == 0
        assert buffer < 8 or chosen == 3


def frames(times: list[tuple[float, bool]]) -> Frames:
    waiting = Frames()
    for due_s, key in times:
        waiting.push(due_s, AccessUnit(due_s, KEY if key else OTHER))
    return waiting


def test_pictures_wait_until_they_are_due() -> None:
    waiting = frames([(0, True), (1, False)])
    first = waiting.take(0)
    assert first is not None
    assert (first.time_s, first.key) == (0, True)
    assert waiting.take(0.9) is None
    assert waiting.next_s == 1
    assert waiting.take(1) is not None
    assert waiting.next_s is None


def test_who_is_late_goes_on_at_the_newest_key_picture_that_is_due() -> None:
    waiting = frames([(0, True), (1, False), (2, True), (3, False), (4, True)])
    unit = waiting.take(3.5)
    assert unit is not None
    assert unit.time_s == 2
    assert waiting.skipped == 2
    assert waiting.behind(3.5)
    unit = waiting.take(3.5)
    assert unit is not None
    assert unit.time_s == 3
    assert not waiting.behind(3.5)
    assert waiting.skipped == 2


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=40))
def test_nothing_is_decoded_without_what_it_refers_to(steps: list[tuple[bool, int]]) -> None:
    """Whenever one looks: all between a key picture and what is decoded has been decoded."""
    waiting = frames([(n, n == 0 or key) for n, (key, _) in enumerate(steps)])
    keys = [n == 0 or key for n, (key, _) in enumerate(steps)]
    decoded: list[int] = []
    clock = 0
    for _, pause in steps:
        clock += pause
        if (unit := waiting.take(clock)) is not None:
            number = int(unit.time_s)
            assert keys[number] or number - 1 == decoded[-1]
            decoded.append(number)
    assert len(decoded) + waiting.skipped == (waiting.next_s or len(steps))


# -- a session -----------------------------------------------------------------------------------


def test_a_viewer_begins_behind_the_live_edge_and_plays_on() -> None:
    play = Playbook(Settings(behind_s=6))
    play.run(20)
    playing = [seen for seen in play.seen if seen.state == "playing"]
    first, last = playing[0], playing[-1]
    assert first.position_s == pytest.approx(14, abs=0.2)
    assert last.position_s is not None
    assert first.position_s is not None
    assert last.position_s - first.position_s == pytest.approx(last.time_s - first.time_s)
    assert play.session.stalls(play.clock) == (0, 0)
    assert play.bitrates[-1] == RATES[-1]
    assert play.session.live_edge_s(play.clock) == pytest.approx(play.now, abs=1.1)


def test_each_segment_is_asked_for_once_and_none_is_left_out() -> None:
    play = Playbook()
    play.run(20, rate=2e6)
    numbers = [int(path.split("/")[2][:-3]) for path in play.asked if path.endswith(".ts")]
    assert numbers == list(range(14, 14 + len(numbers)))
    assert len(numbers) - play.session.segments in (0, 1)  # one may be on its way


def test_a_stream_younger_than_that_is_waited_for() -> None:
    play = Playbook(Settings(behind_s=6), age_s=2)
    play.run(3.5)
    assert play.session.segments == 0
    play.run(6)
    assert play.session.position_s(play.clock) == pytest.approx(play.now - 6, abs=1.3)


def test_a_slow_network_lowers_the_bitrate_rather_than_stop_the_picture() -> None:
    play = Playbook()
    play.run(20)
    play.run(30, rate=400e3)
    assert play.session.stalls(play.clock) == (0, 0)
    assert RATES[0] in play.bitrates[-200:]
    assert RATES[2] not in play.bitrates[-200:]
    play.run(30)
    assert play.bitrates[-1] == RATES[-1]


def test_an_outage_shorter_than_the_buffer_is_not_seen() -> None:
    play = Playbook()
    play.run(15)
    play.run(3, rate=0)
    play.run(10)
    assert play.session.stalls(play.clock) == (0, 0)
    assert play.session.missed_s == 0


def test_an_outage_longer_than_the_buffer_is_one_stall_of_the_rest() -> None:
    play = Playbook()
    play.run(15)
    held = play.seen[-1].buffer_s
    play.run(12, rate=0)
    assert play.seen[-1].state == "stalled"
    play.run(10)
    count, stalled_s = play.session.stalls(play.clock)
    assert count == 1
    assert stalled_s == pytest.approx(12 - held, abs=0.5)
    assert play.session.missed_s == 0  # what was missed is still served
    latency = (play.session.live_edge_s(play.clock) or 0) - (play.seen[-1].position_s or 0)
    assert latency == pytest.approx(6 + stalled_s, abs=1.3)


def test_what_is_no_longer_served_is_missed() -> None:
    play = Playbook(window_s=10)
    play.run(15)
    before = play.seen[-1]
    assert before.position_s is not None
    play.run(40, rate=0)
    play.run(5)
    after = play.seen[-1]
    assert after.position_s is not None
    _count, stalled_s = play.session.stalls(play.clock)
    skipped = after.position_s - before.position_s - (after.time_s - before.time_s - stalled_s)
    assert play.session.missed_s > 15
    assert skipped == pytest.approx(play.session.missed_s)


def test_a_pause_of_the_whole_machine_is_no_stall_to_the_player() -> None:
    play = Playbook()
    play.run(15)
    before = play.seen[-1]
    assert before.position_s is not None
    play.run(8, paused=True)
    play.run(3)
    after = play.seen[-1]
    assert play.session.stalls(play.clock) == (0, 0)
    assert after.position_s == pytest.approx(before.position_s + 3)
    latency = (play.session.live_edge_s(play.clock) or 0) - (after.position_s or 0)
    assert latency == pytest.approx(6 + 8, abs=1.3)


@pytest.mark.parametrize(
    ("position", "begins", "missed"),
    [(30.0, 30, 0), (30.7, 30, 0), (12.5, 20, 7.5), (-1, 20, 21), (55, 39, 0)],
)
def test_a_viewer_can_begin_where_another_one_ended(
    position: float, begins: float, missed: float
) -> None:
    play = Playbook(Settings(position_s=position), age_s=40, window_s=20)
    play.run(0.5)
    first = next(seen for seen in play.seen if seen.position_s is not None)
    assert first.position_s == pytest.approx(begins, abs=0.2)
    assert play.session.missed_s == pytest.approx(missed)


def test_a_lost_answer_is_wanted_again() -> None:
    session = Session(MASTER)
    assert session.wanted(0) == MASTER
    assert session.wanted(1) is None
    session.lost()
    assert session.wanted(2) == MASTER


def test_a_segment_that_has_just_gone_is_looked_for_anew() -> None:
    play = Playbook()
    play.run(5)
    path = None
    while path is None or not path.endswith(".ts"):
        play.now += 0.05
        path = play.session.wanted(play.clock) or path
        if path and not path.endswith(".ts"):
            answer = play.stream.answer(request("GET", path, "x"))
            play.session.arrived(play.clock, 200, answer.body)
            play.run(0)
    play.session.arrived(play.clock, 404, b"")
    assert str(play.session.wanted(play.clock)).endswith("index.m3u8")


def test_other_answers_are_errors() -> None:
    session = Session(MASTER)
    with pytest.raises(UnexpectedAnswer, match="nothing"):
        session.arrived(0, 200, b"")
    assert session.wanted(0) == MASTER
    with pytest.raises(UnexpectedAnswer, match=r"/live\.m3u8: status 404"):
        session.arrived(0, 404, b"")
    assert session.wanted(0) == MASTER
    with pytest.raises(PlaylistError, match="is no playlist"):
        session.arrived(0, 200, b"\xff\xd8 a picture")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["open", "slow", "outage", "pause"]), st.integers(1, 9)),
        max_size=6,
    )
)
def test_time_adds_up_whatever_happens(spells: list[tuple[str, int]]) -> None:
    play = Playbook(window_s=20)
    rates = {"open": None, "slow": 300e3, "outage": 0.0, "pause": None}
    for kind, seconds in spells:
        play.run(seconds, rate=rates[kind], paused=kind == "pause")
    session, clock = play.session, play.clock
    shown = [seen for seen in play.seen if seen.position_s is not None]
    for earlier, later in itertools.pairwise(shown):
        assert later.position_s is not None
        assert earlier.position_s is not None
        assert later.position_s >= earlier.position_s - 1e-6
    if not shown or session.state(clock) == "starting":
        return
    starting = sum(seen.state == "starting" for seen in play.seen) * 0.05
    lived = clock - 20
    _count, stalled_s = session.stalls(clock)
    assert session.played_s(clock) + stalled_s + starting == pytest.approx(lived, abs=0.2)
    assert shown[0].position_s is not None
    position = session.position_s(clock)
    assert position is not None
    assert position <= play.now
