"""The attacker against synthetic captures: what it can know, and what it cannot."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from trusted_pooling_wire import PHONE, SERVER, SERVER_KEY, UP, data, dss, syn, third_ack

from testbed.mptcp.counters import Address
from testbed.mptcp.keys import token
from traffic.web.http import request
from usecases.trusted_pooling.attacker import Loot, attack, chunks, read_secrets
from usecases.trusted_pooling.capture import Flow
from usecases.trusted_pooling.streams import Piece

LOGIN = request("POST", "/login", "bank.example", body=b"user=eve&password=s%26cret").build()
PAGE = request("GET", "/p0/", "bank.example", cookie="session=abc123").build()


def test_a_login_and_a_cookie_are_read() -> None:
    haul = attack([syn(), data(LOGIN + PAGE, 1, mapping=dss(1, 1, len(LOGIN + PAGE)))])
    assert haul.loot == {
        Loot("login", "bank.example", "eve", "s&cret"),
        Loot("cookie", "bank.example", "session", "abc123"),
    }
    assert (haul.count("login"), haul.count("cookie")) == (1, 1)
    (connection,) = haul.connections
    assert (connection.share, connection.requests) == (1.0, 2)
    assert list(haul.sites) == ["bank.example"]


def test_a_cookie_that_a_server_sets_is_read_in_its_answer() -> None:
    answer = b"HTTP/1.1 303 See Other\r\nSet-Cookie: session=xyz; Path=/\r\n\r\n"
    (loot,) = read_secrets(answer, "shop.example")
    assert loot == Loot("cookie", "shop.example", "session", "xyz")


def test_behind_tls_it_reads_nothing() -> None:
    flow = Flow(PHONE, Address("10.9.0.2", 443))
    by_port = attack([syn(flow), data(PAGE, 1, mapping=dss(1, 1, len(PAGE)), flow=flow)])
    hello = b"\x16\x03\x01\x02\x00" + PAGE
    by_content = attack([syn(), data(hello, 1, mapping=dss(1, 1, len(hello)))])
    for haul in (by_port, by_content):
        assert haul.loot == set()
        assert haul.connections[0].held > 0
        assert haul.connections[0].share == 0


def test_subflows_are_grouped_by_the_token_of_the_handshake() -> None:
    joined = Flow(Address("10.1.0.2", 40001), SERVER)
    half = len(PAGE) // 2
    haul = attack(
        [
            syn(),
            third_ack(),
            syn(joined, 5000, token=token(SERVER_KEY)),
            data(PAGE[half:], 1, mapping=dss(9 + half, 1, len(PAGE) - half), flow=joined,
                 initial=5000),
            data(PAGE[:half], 1, mapping=dss(9, 1, half)),
        ]
    )  # fmt: skip
    assert len(haul.connections) == 1
    assert haul.count("cookie") == 1


def test_two_joins_of_a_connection_that_began_elsewhere_are_one_connection() -> None:
    flows = [Flow(Address("10.1.0.2", port), SERVER) for port in (1, 2)]
    segments = [syn(flow, token=77) for flow in flows]
    segments += [
        data(b"x" * 10, 1, mapping=dss(100 * n, 1, 10), flow=flow) for n, flow in enumerate(flows)
    ]
    (connection,) = attack(segments).connections
    assert (connection.held, connection.span) == (20, 110)


def test_what_it_lacks_leaves_a_hole_it_reads_around() -> None:
    stream = LOGIN + PAGE
    lacks = len(LOGIN) - 12  # the password's end went over another path
    haul = attack(
        [
            syn(),
            data(stream[:lacks], 1, mapping=dss(1, 1, lacks)),
            data(PAGE, 5000, mapping=dss(1 + len(LOGIN), 5000, len(PAGE))),
        ]
    )
    assert haul.count("cookie") == 1
    (connection,) = haul.connections
    assert connection.held == len(stream) - 12
    assert connection.span == len(stream)


def test_bytes_without_a_place_are_of_no_use_to_it() -> None:
    haul = attack([syn(), data(PAGE, 1)])
    assert haul.loot == set()


@given(
    st.binary(min_size=1, max_size=200),
    st.lists(st.tuples(st.integers(0, 199), st.integers(1, 60)), max_size=12),
    st.randoms(use_true_random=False),
)
def test_chunks_are_the_stream_where_it_was_captured(
    stream: bytes, spans: list[tuple[int, int]], order: random.Random
) -> None:
    parts = [(start, stream[start : start + length]) for start, length in spans]
    parts = [(start, part) for start, part in parts if part]
    order.shuffle(parts)
    found = list(chunks(Piece(0.0, UP, start, True, part) for start, part in parts))
    for start, content in found:
        assert stream[start : start + len(content)] == content
    covered = {n for start, part in parts for n in range(start, start + len(part))}
    assert {n for start, part in found for n in range(start, start + len(part))} == covered
    ends = [(start, start + len(part)) for start, part in found]
    assert all(end < start for (_s, end), (start, _e) in pairwise(ends))
