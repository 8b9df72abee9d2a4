"""The trust gate on real connections: nothing sensitive leaks.

Sensitive bytes have their highest bit set, other bytes have not, and whatever
crosses the untrusted path is captured whole: a leak is a byte with that bit.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path as FilePath

import pytest
from mptcp_lab import LTE, PORT, SERVER, WIFI, Connection, Lab, segments, until

from testbed.errors import KernelError
from testbed.mptcp import sockets
from testbed.mptcp.confinement import (
    Path,
    State,
    Trust,
)
from testbed.mptcp.gate import TrustGate
from testbed.mptcp.guard import PayloadGuard
from testbed.mptcp.path_manager import PathManager

_PLAIN = bytes(i & 0x7F for i in range(256))
_SENSITIVE = bytes(i | 0x80 for i in range(256))


def payload(size: int, *, sensitive: bool) -> bytes:
    return os.urandom(size).translate(_SENSITIVE if sensitive else _PLAIN)


def sensitive_bytes(data: bytes) -> int:
    return len(data.translate(None, bytes(range(128))))


@dataclass
class Transfer(Connection):
    """A connection whose bytes are counted and hashed."""

    received: hashlib._Hash = field(default_factory=hashlib.sha256)
    sent: hashlib._Hash = field(default_factory=hashlib.sha256)
    given: int = 0
    count: int = 0

    def send(self, sock: socket.socket, size: int, *, sensitive: bool) -> None:
        data = payload(size, sensitive=sensitive)
        self.sent.update(data)
        self.given += size
        sock.sendall(data)

    def client_sends_over(self, local: str, size: int) -> None:
        """Send bytes that are not sensitive until `size` more have arrived from `local`."""

        def arrived() -> int:
            flows = sockets.subflows(self.server)
            return sum(flow.bytes_received for flow in flows if flow.remote.ip == local)

        def enough() -> bool:
            self.send(self.client, 200_000, sensitive=False)  # more than one path takes at once
            return arrived() >= wanted

        wanted = arrived() + size
        until(enough, f"{size} bytes over {local}")

    @contextmanager
    def receiving(self, sock: socket.socket) -> Iterator[None]:
        """Receive at `sock` what the block sends at the other end; their hashes agree."""

        def receive() -> None:
            while data := sock.recv(1 << 16):
                self.received.update(data)
                self.count += len(data)

        sock.settimeout(60)
        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        yield
        (self.client if sock is self.server else self.server).shutdown(socket.SHUT_WR)
        thread.join(90)
        assert self.count == self.given
        assert self.received.digest() == self.sent.digest()


def leaked(path: FilePath, *, source: str) -> tuple[int, int]:
    """Bytes from `source` in a capture: sensitive ones, and all."""
    found = [s for s in segments(path) if s.source == source and s.payload]
    return sum(sensitive_bytes(s.payload) for s in found), sum(len(s.payload) for s in found)


def periods(count: int, seed: int, mean: int) -> list[int]:
    """Sizes of alternating periods, the first one not sensitive."""
    draw = random.Random(seed)
    return [draw.randint(mean // 4, mean * 2) for _ in range(2 * count)]


@pytest.mark.live
@pytest.mark.parametrize(
    ("permille", "first", "blocking"),
    [(0, WIFI, False), (20, LTE, False), (50, WIFI, False), (50, LTE, True)],
)
def test_nothing_leaks(tmp_path: FilePath, permille: int, first: str, blocking: bool) -> None:
    sizes, open_size = periods(8, seed=permille, mean=120_000), 20_000
    capture = tmp_path / "lte.pcap"
    with Lab(wifi_mbit=20, lte_mbit=10) as lab, Transfer(lab, first) as connection:
        if permille:
            lab.lose("wifi", permille)
            lab.lose("lte", permille)
        trust = Trust(local=frozenset({WIFI}))
        guard = PayloadGuard(lab.client, trust)
        with (
            lab.capture(capture, node=lab.client, name="lte"),
            connection.receiving(connection.server),
            TrustGate(connection.client, connection.client_manager, guard) as gate,
        ):
            opened = 0
            for position, size in enumerate(sizes):
                if position % 2:
                    with gate.sensitive():
                        connection.send(connection.client, size, sensitive=True)
                    if blocking or position % 3 == 0:
                        gate.wait_open()
                        connection.client_sends_over(LTE, open_size)
                        opened += 1
                else:
                    connection.send(connection.client, size, sensitive=False)
            gate.wait_open()
            assert len(gate.drain_times_s) >= opened >= 3
    sensitive, everything = leaked(capture, source=LTE)
    assert sensitive == 0
    assert everything >= opened * open_size  # the untrusted path was there to leak on


@pytest.mark.live
def test_the_measurement_sees_a_leak_without_the_gate(tmp_path: FilePath) -> None:
    capture = tmp_path / "lte.pcap"
    with (
        Lab(wifi_mbit=20, lte_mbit=10) as lab,
        Transfer(lab) as connection,
        lab.capture(capture, node=lab.client, name="lte"),
        connection.receiving(connection.server),
    ):
        connection.send(connection.client, 600_000, sensitive=True)
    assert leaked(capture, source=LTE)[0] > 0


@pytest.mark.live
def test_a_period_may_begin_while_the_last_one_drains(tmp_path: FilePath) -> None:
    capture, overlaps = tmp_path / "lte.pcap", 0
    rounds, secret, plain = 12, 60_000, 5_000
    with Lab(wifi_mbit=10, lte_mbit=10) as lab, Transfer(lab) as connection:
        lab.lose("wifi", 20)
        trust = Trust(local=frozenset({WIFI}))
        with (
            lab.capture(capture, node=lab.client, name="lte"),
            connection.receiving(connection.server),
            TrustGate(
                connection.client, connection.client_manager, PayloadGuard(lab.client, trust)
            ) as gate,
        ):
            for _ in range(rounds):
                connection.send(connection.client, plain, sensitive=False)
                overlaps += gate.state is State.DRAINING
                with gate.sensitive():
                    connection.send(connection.client, secret, sensitive=True)
            gate.wait_open()
            until(lambda: len(sockets.subflows(connection.client)) == 2, "LTE restored")
    assert overlaps
    assert leaked(capture, source=LTE)[0] == 0


@pytest.mark.live
def test_the_server_enforces_also_when_the_client_joins_in_mid_period(tmp_path: FilePath) -> None:
    capture = tmp_path / "lte.pcap"
    sizes = periods(6, seed=3, mean=150_000)
    with Lab(wifi_mbit=20, lte_mbit=10) as lab, Transfer(lab) as connection:
        lab.lose("wifi", 20)
        trust = Trust(remote=frozenset({WIFI}))
        welcome: list[Path] = []
        guard = PayloadGuard(lab.server, trust)
        with (
            lab.capture(capture, node=lab.client, name="lte"),
            connection.receiving(connection.client),
            TrustGate(
                connection.server,
                connection.server_manager,
                guard,
                restore=welcome.append,
            ) as gate,
        ):
            for position, size in enumerate(sizes):
                if position % 2:
                    with gate.sensitive():
                        connection.send(connection.server, size // 2, sensitive=True)
                        connection.join(LTE, 2)  # a client that does not know, or does not care
                        connection.send(connection.server, size - size // 2, sensitive=True)
                else:
                    connection.send(connection.server, size, sensitive=False)
            gate.wait_open()
            assert gate.intruders == len(sizes) // 2
            assert welcome
            assert {path.remote.ip for path in welcome} == {LTE}
            assert guard.dropped() > 0  # it was needed
    sensitive, everything = leaked(capture, source=SERVER)
    assert sensitive == 0
    assert everything > 0


@pytest.mark.live
def test_a_dead_trusted_path_waits_and_resumes_with_a_fresh_subflow(tmp_path: FilePath) -> None:
    capture, size = tmp_path / "lte.pcap", 50_000
    with Lab(wifi_mbit=10, lte_mbit=10) as lab, Transfer(lab) as connection:
        trust = Trust(local=frozenset({WIFI}))
        with (
            lab.capture(capture, node=lab.client, name="lte"),
            connection.receiving(connection.server),
            TrustGate(
                connection.client, connection.client_manager, PayloadGuard(lab.client, trust)
            ) as gate,
        ):
            (oldest,) = (f for f in sockets.subflows(connection.client) if f.local.ip == WIFI)

            def timeouts() -> int:
                flows = sockets.subflows(connection.client)
                return next(f.timeouts for f in flows if f.id == oldest.id)

            with gate.sensitive():
                connection.send(connection.client, size, sensitive=True)
                until(lambda: connection.count == size, "first half")
                lab.lose("wifi", 1000)
                connection.send(connection.client, size, sensitive=True)
            # Its timer has doubled to 3 s and more: the old subflow is not what resumes.
            until(lambda: timeouts() >= 4, "four retransmissions in vain")
            assert connection.count == size
            assert gate.state is State.DRAINING
            lab.heal("wifi")
            gate.wait_open()
            flows = sockets.subflows(connection.client)
            fresh = [f for f in flows if f.local.ip == WIFI and f.id != oldest.id]
            assert sum(flow.bytes_acked for flow in fresh) > 0
    assert leaked(capture, source=LTE)[0] == 0


@pytest.mark.live
def test_what_cannot_be_confined_is_refused() -> None:
    with Lab() as lab:
        with lab.server:
            listener = sockets.listen((SERVER, PORT))
        guard = PayloadGuard(lab.client, Trust(local=frozenset({WIFI})))
        with lab.client, PathManager() as manager:
            kernel = sockets.connect((SERVER, PORT), local=(LTE, 0))
            gate = TrustGate(kernel, manager, guard)
            with pytest.raises(KernelError, match="path_manager=userspace"):
                gate.begin()
            assert gate.state is State.CLOSING
            gate.close()
            with lab.server:
                plain = socket.create_server((SERVER, PORT + 1))
            fallen = sockets.connect((SERVER, PORT + 1))
            with pytest.raises(KernelError, match="plain TCP"):
                TrustGate(fallen, manager, guard)
            for sock in (kernel, fallen, plain, listener):
                sock.close()


@pytest.mark.live
def test_a_server_that_listens_on_both_families_is_confined_too() -> None:
    with Lab() as lab, Transfer(lab, LTE, listen="::") as connection:
        guard = PayloadGuard(lab.server, Trust(remote=frozenset({WIFI})))
        restored: list[Path] = []
        with TrustGate(
            connection.server, connection.server_manager, guard, restore=restored.append
        ) as gate:
            with gate.sensitive():
                flows = sockets.subflows(connection.server)
                assert {flow.remote.ip for flow in flows if flow.may_send} == {WIFI}
            gate.wait_open()
        assert [path.remote.ip for path in restored] == [LTE]
