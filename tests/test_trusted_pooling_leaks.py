"""Captured bytes placed in their connections and judged: synthetic captures, no root."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trusted_pooling_wire import (
    CLIENT_KEY,
    SERVER,
    SERVER_KEY,
    UP,
    data,
    dss,
    frame,
    syn,
    third_ack,
    write_pcap,
)

from testbed.errors import ExperimentError
from testbed.mptcp.counters import Address
from testbed.mptcp.keys import idsn, token
from testbed.mptcp.options import MpCapable
from usecases.trusted_pooling.capture import Flow, Segment, read
from usecases.trusted_pooling.leaks import Leaks, Note, judge
from usecases.trusted_pooling.ranges import RangeSet
from usecases.trusted_pooling.streams import Piece, place

_2_64 = 1 << 64


# -- sets of ranges ------------------------------------------------------------------------------

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


@given(RANGES, st.tuples(st.integers(0, 60), st.integers(0, 60)))
def test_a_range_set_is_a_set(ranges: list[tuple[int, int]], probe: tuple[int, int]) -> None:
    model = {number for start, end in ranges for number in range(start, end)}
    found = RangeSet(ranges)
    assert len(found) == len(model)
    assert {n for start, end in found for n in range(start, end)} == model
    inside = {n for start, end in found.overlap(*probe) for n in range(start, end)}
    assert inside == model & set(range(*probe))
    spans = list(found)
    assert all(end < following for (_s, end), (following, _e) in pairwise(spans))


# -- capture files -------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "nano"), [("<", False), ("<", True), (">", False)])
def test_a_capture_is_read_as_it_was_written(tmp_path: Path, order: str, nano: bool) -> None:
    segments = [syn(), data(b"hello", 1, mapping=dss(5, 1, 5)), data(b"x" * 1400, 6)]
    path = tmp_path / "c.pcap"
    noise = b"\x02" * 12 + b"\x08\x06" + bytes(40)
    write_pcap(
        path, [noise, *(frame(each, padding=4) for each in segments)], order=order, nano=nano
    )
    found = list(read(path))
    assert [each._replace(time_s=0) for each in found] == segments
    assert found[0].time_s == pytest.approx(1, abs=1e-3)


def test_ipv6_is_read_and_a_cut_off_record_left_out(tmp_path: Path) -> None:
    path = tmp_path / "c.pcap"
    write_pcap(path, [frame(data(b"secret", 1), six=True), frame(data(b"more", 7))])
    path.write_bytes(path.read_bytes()[:-1])
    (found,) = read(path)
    assert found.payload == b"secret"
    assert found.flow.source == Address("fd01::2", 40000)


def test_something_else_is_no_capture(tmp_path: Path) -> None:
    path = tmp_path / "c.pcap"
    path.write_bytes(b"not a capture, but long enough for a header")
    with pytest.raises(ExperimentError, match=r"c\.pcap is not a pcap file"):
        list(read(path))


# -- placing -------------------------------------------------------------------------------------


def dsns(pieces: list[Piece]) -> list[tuple[int | None, bytes]]:
    return [(piece.dsn, piece.payload) for piece in pieces]


def test_a_mapping_covers_segments_that_do_not_carry_it() -> None:
    found = place([syn(), data(b"abc", 1, mapping=dss(100, 1, 6)), data(b"def", 4)])
    assert dsns(found) == [(100, b"abc"), (103, b"def")]


def test_order_of_capture_and_repetition_do_not_matter() -> None:
    first, second = data(b"abc", 1, mapping=dss(100, 1, 6)), data(b"def", 4)
    assert dsns(place([second, first, syn(), second])) == [
        (103, b"def"), (100, b"abc"), (103, b"def"),
    ]  # fmt: skip


def test_the_first_data_is_mapped_by_mp_capable() -> None:
    option = MpCapable(sender_key=CLIENT_KEY, receiver_key=SERVER_KEY, data_length=3)
    found = place([syn(), third_ack(), data(b"GET", 1, mapping=option), data(b"xyz", 4)])
    assert dsns(found) == [(idsn(CLIENT_KEY) + 1, b"GET"), (None, b"xyz")]


def test_a_segment_is_split_where_mappings_meet_and_where_there_is_none() -> None:
    segments = [
        syn(),
        data(b"", 1),
        data(b"abcdefgh", 1, mapping=dss(100, 2, 3)),
        data(b"f", 6, mapping=dss(900, 6, 1)),
    ]
    assert dsns(place(segments)) == [
        (None, b"a"), (100, b"bcd"), (None, b"e"), (900, b"f"), (None, b"gh"), (900, b"f"),
    ]  # fmt: skip


def test_a_data_fin_takes_no_byte_of_the_subflow() -> None:
    found = place([syn(), data(b"ab", 1, mapping=dss(7, 1, 3, fin=True)), data(b"c", 3)])
    assert dsns(found) == [(7, b"ab"), (None, b"c")]


def test_sequence_numbers_wrap() -> None:
    initial = (1 << 32) - 3
    segments = [
        syn(sequence=initial),
        data(b"abcd", 1, mapping=dss(_2_64 - 2, 1, 8), initial=initial),
        data(b"efgh", 5, initial=initial),
    ]
    assert dsns(place(segments)) == [(_2_64 - 2, b"abcd"), (2, b"efgh")]


def test_without_its_syn_or_with_damaged_options_nothing_is_placed() -> None:
    damaged = data(b"x", 1)._replace(options=b"\x1e\x04\x20\x04")
    assert dsns(place([data(b"y", 1, mapping=dss(1, 1, 1))])) == [(None, b"y")]
    assert dsns(place([syn(), damaged])) == [(None, b"x")]


@st.composite
def transfers(draw: st.DrawFn) -> tuple[bytes, int, list[Segment], list[tuple[int, int]]]:
    """A stream over two subflows: its content, first number, segments, (start, end) of each."""
    content = draw(st.binary(min_size=1, max_size=300))
    first = draw(st.sampled_from([1, 12345678901234, _2_64 - 50]))
    wide = draw(st.booleans())
    flows = [UP, Flow(Address("10.1.0.2", 40001), SERVER)]
    initial = {flow: draw(st.integers(0, (1 << 32) - 1)) for flow in flows}
    ssn = dict.fromkeys(flows, 1)
    segments: list[Segment] = [syn(flow, initial[flow]) for flow in flows]
    spans: list[tuple[int, int]] = []
    start = 0
    while start < len(content):
        flow = draw(st.sampled_from(flows))
        end = min(len(content), start + draw(st.integers(1, 40)))
        mapping = dss((first + start) % _2_64, ssn[flow], end - start, wide=wide)
        cut = start
        while cut < end:
            stop = min(end, cut + draw(st.integers(1, 15)))
            own = mapping if cut == start or draw(st.booleans()) else None
            segments.append(
                data(content[cut:stop], ssn[flow] + cut - start, mapping=own, flow=flow,
                     initial=initial[flow])
            )  # fmt: skip
            spans.append((cut, stop))
            cut = stop
        ssn[flow] += end - start
        start = end
    return content, first, segments, spans


@given(transfers(), st.randoms(use_true_random=False), st.data())
@settings(max_examples=60, deadline=None)
def test_leaks_are_counted_byte_by_byte(
    transfer: tuple[bytes, int, list[Segment], list[tuple[int, int]]],
    shuffled: random.Random,
    drawn: st.DataObject,
) -> None:
    """Against a count made byte by byte: losses, repetitions, any order, 32 and 64 bits."""
    content, first, segments, spans = transfer
    handshake, carried = segments[:2], segments[2:]
    # captured 0 to 2 times; those that carry mappings at least once (the rest depends on them)
    times = [drawn.draw(st.integers(1 if each.options else 0, 2)) for each in carried]
    capture = [each for each, n in zip(carried, times, strict=True) for _ in range(n)]
    shuffled.shuffle(capture)
    marks = RangeSet(
        drawn.draw(st.lists(st.tuples(*[st.integers(0, len(content))] * 2), max_size=4))
    )
    sensitive = tuple((start, end, "phase") for start, end in marks)
    note = Note(
        connection="c", sender="phone", first=first, length=len(content), sensitive=sensitive
    )
    held = [0] * len(content)
    for (start, end), n in zip(spans, times, strict=True):
        for offset in range(start, end):
            held[offset] += n
    secret = {offset for start, end in marks for offset in range(start, end)}

    leaks = judge(place([*handshake, *capture]), [note])

    assert leaks.unplaced == leaks.foreign == 0
    assert leaks.held["c", "phone"] == sum(n > 0 for n in held)
    if secret:
        phase = leaks.phases["phase"]
        assert phase.sent == len(secret)
        assert phase.leaked == sum(held[offset] > 0 for offset in secret)
        assert phase.crossings == sum(held[offset] for offset in secret)


def note(name: str, first: int, length: int, *sensitive: tuple[int, int, str]) -> Note:
    return Note(connection=name, sender="phone", first=first, length=length, sensitive=sensitive)


def piece(dsn: int | None, payload: bytes, *, wide: bool = True) -> Piece:
    return Piece(0.0, UP, dsn, wide, payload)


def test_what_nobody_noted_is_not_lost_from_sight() -> None:
    leaks = judge([piece(5000, b"abc"), piece(None, b"de")], [note("c", 100, 10, (0, 10, "p"))])
    assert (leaks.foreign, leaks.unplaced, leaks.leaked, leaks.sent) == (3, 2, 0, 10)


def test_the_last_stream_may_wrap_round() -> None:
    leaks = judge([piece(3, b"ab")], [note("c", _2_64 - 5, 20, (9, 10, "p"))])
    assert (leaks.leaked, leaks.foreign) == (1, 0)


def test_half_a_number_is_held_against_every_connection_it_fits() -> None:
    notes = [note("a", 100, 10, (0, 10, "p")), note("b", 100 + (1 << 33), 10, (0, 10, "p"))]
    assert judge([piece(100, b"xy", wide=False)], notes).leaked == 4
    assert judge([piece(100, b"xy")], notes).leaked == 2


def test_no_notes_no_leaks() -> None:
    assert judge([piece(1, b"x")], []) == Leaks(foreign=1)


def test_tokens_of_the_synthetic_keys_differ() -> None:
    assert token(CLIENT_KEY) != token(SERVER_KEY)
