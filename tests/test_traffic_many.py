"""Many live connections: the exchanges' protocol, and the program on real networks."""

from __future__ import annotations

import itertools
import json
import resource
import socket
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traffic_lab import Program, serving

from testbed.kernel.nftables import Nftables
from testbed.network import Network
from topologies.star import Star
from traffic import many
from traffic.exchange import LEAST, MOST, Asker, Checker, Corrupt

live = pytest.mark.live
sizes = st.lists(st.integers(LEAST, 400), min_size=1, max_size=8)


def chopped(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


def cut(tables: Nftables, rule: str) -> None:
    """Apply `rule` to what comes to the server's port."""
    chain = f"type filter hook input priority 0; tcp dport {many.PORT} {rule};"
    tables.run(f"table inet cut {{ chain input {{ {chain} }}; }}")


# -- exchanges -----------------------------------------------------------------------------------


@given(sizes, st.lists(st.integers(0), max_size=6), st.lists(st.integers(0), max_size=6))
def test_exchanges_are_verified_however_the_stream_is_cut(
    wanted: list[int], cuts: list[int], back_cuts: list[int]
) -> None:
    asker, checker = Asker(7), Checker()
    sent = [asker.ask(float(number), size) for number, size in enumerate(wanted)]
    echoes = [
        message for piece in chopped(b"".join(sent), cuts) for message in checker.heard(piece)
    ]
    assert echoes == sent
    heard = [each for piece in chopped(b"".join(echoes), back_cuts) for each in asker.heard(piece)]
    assert heard == [(float(number), size) for number, size in enumerate(wanted)]
    assert not asker.waiting


@given(sizes, st.integers(0), st.integers(1, 255))
def test_a_changed_byte_never_passes(wanted: list[int], place: int, change: int) -> None:
    asker, checker = Asker(3), Checker()
    sent = bytearray(b"".join(asker.ask(0.0, size) for size in wanted))
    sent[place % len(sent)] ^= change
    try:
        passed = checker.heard(bytes(sent))
    except Corrupt:
        return
    # a size grown by the change: the message is still awaited, and nothing after it has passed
    assert sum(map(len, passed)) <= place % len(sent)


@given(st.integers(2, 8), st.data())
def test_a_missing_doubled_or_swapped_message_never_passes(count: int, data: Any) -> None:
    asker = Asker(5)
    sent = [asker.ask(0.0, 80) for _ in range(count)]
    place = data.draw(st.integers(0, count - 2))
    kinds = {
        "missing": sent[:place] + sent[place + 1 :],
        "doubled": sent[: place + 1] + sent[place:],
        "swapped": [*sent[:place], sent[place + 1], sent[place], *sent[place + 2 :]],
    }
    with pytest.raises(Corrupt):
        Checker().heard(b"".join(kinds[data.draw(st.sampled_from(sorted(kinds)))]))


def test_a_message_of_another_connection_never_passes() -> None:
    one, other, checker = Asker(1), Asker(2), Checker()
    checker.heard(one.ask(0.0, 100))
    other.ask(0.0, 100)
    with pytest.raises(Corrupt, match="connection 2"):
        checker.heard(other.ask(0.0, 100))


def test_an_echo_that_differs_or_was_not_asked_for_never_passes() -> None:
    asker = Asker(1)
    message = asker.ask(0.0, LEAST)
    with pytest.raises(Corrupt, match="differs"):
        asker.heard(message[:-1] + bytes([message[-1] ^ 1]))
    with pytest.raises(Corrupt, match="nothing"):
        Asker(1).heard(b"x")


def test_a_greeting_begins_the_first_message_only() -> None:
    asker = Asker(1, b"GET /film")
    assert b"GET /film" in asker.ask(0.0, LEAST)
    assert b"GET /film" not in asker.ask(0.0, MOST)


def test_payload_of_words_can_be_compressed_and_noise_cannot() -> None:
    ratios = {}
    for text in (False, True):
        asker, checker = Asker(1, text=text), Checker()
        message = asker.ask(0.0, 4096)
        assert checker.heard(message) == [message]
        ratios[text] = len(message) / len(zlib.compress(message))
    assert ratios[False] < 1.05
    assert ratios[True] > 1.8


def test_a_limit_of_files_that_may_not_be_raised_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def refuse_more(_kind: int, limits: tuple[int, int]) -> None:
        tried.append(limits)
        if limits[1] > 4096:
            raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse_more)
    assert many.allow_files() == 4096
    assert tried == [(65536, 65536), (4096, 4096)]


# -- the program ---------------------------------------------------------------------------------


@live
@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_all_of_many_connections_live(protocol: str) -> None:
    with (
        Network(Star(2)) as net,
        serving(net["h2"], "many", "server", f"--{protocol}") as server,
        Program(
            net["h1"], "many", "client", net["h2"].IP(), f"--{protocol}", "--connections", "300",
            "--rate", "600", "--duration", "1", "--opening", "2k",
        ) as client,
    ):  # fmt: skip
        assert client.ready()["connections"] == 300
        results = client.done()
        served = server.stop()
    assert (results["connections"], results["lost"], results["called"]) == (300, 0, True)
    each = results["each"]
    assert each["alive"] == [1] * 300
    assert min(each["bytes"]) > 0
    assert sum(each["bytes"]) == results["bytes_verified"] == served["bytes_verified"]
    assert (served["messages"], served["corrupt"]) == (results["exchanges"], 0)
    assert max(each["gap"]) == pytest.approx(results["gap_max"], abs=1e-3)
    told = sum(sample["value"] for sample in client.samples("exchanges")) * 0.1
    assert 0 < told <= results["exchanges"]


@live
@pytest.mark.parametrize(
    ("verdict", "state"), [("drop", "silent"), ("reject with tcp reset", "reset")]
)
def test_lost_connections_are_counted(verdict: str, state: str) -> None:
    with (
        Network(Star(2)) as net,
        serving(net["h2"], "many", "server") as server,
        Program(
            net["h1"], "many", "client", net["h2"].IP(), "--connections", "64", "--rate", "400",
            "--patience", "1.5",
        ) as client,
        Nftables(net["h2"].netns) as tables,
    ):  # fmt: skip
        client.ready()
        client.until("sample")
        cut(tables, f"tcp sport & 6 == 2 {verdict}")
        client.until("sample")
        client.process.stdin.write(json.dumps({"command": "finish"}) + "\n")
        client.process.stdin.flush()
        results = client.done()
        server.stop()
    lost = 64 - sum(results["each"]["alive"])
    assert 0 < lost < 64
    assert results["lost"] == lost
    assert results["why_lost"] == {state: lost}
    assert client.samples("connections")[0]["value"] == 64


@live
def test_a_pause_of_the_path_shows_in_silence_and_gaps() -> None:
    with (
        Network(Star(2)) as net,
        serving(net["h2"], "many", "server") as server,
        Program(
            net["h1"], "many", "client", net["h2"].IP(), "--connections", "20", "--rate", "200",
            "--duration", "2.5",
        ) as client,
        Nftables(net["h2"].netns) as tables,
    ):  # fmt: skip
        client.ready()
        client.until("sample")
        cut(tables, "drop")
        for _ in range(12):  # three samples each 100 ms
            client.until("sample")
        tables.run("delete table inet cut")
        results = client.done()
        server.stop()
    assert results["lost"] == 0
    assert results["retransmissions"] > 0
    assert results["silence_max"] > 0.15
    assert results["slowest"] >= results["silence_max"] * 0.9
    assert results["gap_max"] >= results["silence_max"]


@live
def test_what_is_not_of_the_protocol_is_refused_and_the_rest_served() -> None:
    with (
        Network(Star(2)) as net,
        serving(net["h2"], "many", "server") as server,
    ):
        with net["h1"].netns, socket.create_connection((net["h2"].IP(), many.PORT)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert stranger.recv(10) == b""
        with Program(
            net["h1"], "many", "client", net["h2"].IP(), "--connections", "2", "--duration", "0.3"
        ) as client:
            assert client.done()["lost"] == 0
        assert server.stop()["corrupt"] == 1
        assert server.events("corrupt")


@live
def test_a_client_without_a_server_ends_with_status_1() -> None:
    with (
        Network(Star(2)) as net,
        Program(net["h1"], "many", "client", net["h2"].IP(), "--connections", "3") as client,
    ):
        status, said = client.error()
    assert status == 1
    assert "Connection refused" in said
    assert said.count("\n") == 1


@live
def test_a_client_told_to_stop_leaves_without_a_roll_call() -> None:
    with (
        Network(Star(2)) as net,
        serving(net["h2"], "many", "server") as server,
        Program(net["h1"], "many", "client", net["h2"].IP(), "--connections", "5") as client,
    ):
        client.ready()
        client.until("sample")
        results = client.stop()
        server.stop()
    assert (results["stopped"], results["called"]) == (True, False)
    assert results["why_lost"] == {"stopped": 5}
