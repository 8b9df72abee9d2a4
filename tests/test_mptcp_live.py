"""The path manager, its events, the sockets' counters, settings and unmodified programs, live."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from mptcp_lab import LTE, PORT, SERVER, WIFI, Connection, Lab, run, until

from testbed.errors import ExperimentError, FeatureError, KernelError, ParameterError
from testbed.kernel import NetworkNamespace
from testbed.mptcp import configure, sockets
from testbed.mptcp.counters import TcpState
from testbed.mptcp.events import EventKind, EventMonitor
from testbed.mptcp.path_manager import Endpoint, EndpointFlag, Limits, PathManager
from testbed.mptcp.programs import as_mptcp


@dataclass
class Card:
    """An interface, as much of it as endpoints need."""

    name: str
    index: int
    ip: str | None
    ip6: str | None = None


@pytest.mark.live
def test_limits_and_endpoints() -> None:
    with Lab() as lab, PathManager(lab.client) as manager:
        assert manager.limits() == Limits(subflows=2, add_addr_accepted=0)
        manager.set_limits(subflows=4)
        manager.set_limits(add_addr_accepted=3)
        assert manager.limits() == Limits(subflows=4, add_addr_accepted=3)
        with pytest.raises(KernelError, match="SET_LIMITS"):
            manager.set_limits(subflows=9)
        manager.add_endpoint(LTE, id=5, interface=3)
        manager.add_endpoint("fd02::2", EndpointFlag.SUBFLOW | EndpointFlag.BACKUP)
        lte, six = sorted(manager.endpoints(), key=lambda endpoint: endpoint.address)
        subflow = EndpointFlag.SUBFLOW
        assert lte == Endpoint(id=5, address=LTE, flags=subflow, interface=3)
        assert six.flags == EndpointFlag.SUBFLOW | EndpointFlag.BACKUP
        manager.change_endpoint(LTE, backup=True)
        manager.change_endpoint(id=six.id, backup=False)
        flags = {endpoint.address: endpoint.flags for endpoint in manager.endpoints()}
        assert flags == {LTE: EndpointFlag.SUBFLOW | EndpointFlag.BACKUP, "fd02::2": subflow}
        with pytest.raises(KernelError, match=f"ADD_ADDR {LTE}"):
            manager.add_endpoint(LTE)
        manager.delete_endpoint(5)
        assert [endpoint.id for endpoint in manager.endpoints()] == [six.id]
        manager.flush_endpoints()
        assert manager.endpoints() == ()


@pytest.mark.live
def test_the_kernels_path_manager_uses_every_configured_interface() -> None:
    cards = [Card("wifi", 2, WIFI, "fd01::2"), Card("lte", 3, LTE)]
    with Lab() as lab:
        configure.configure_endpoints(lab.client, cards, backup=["lte"])
        configure.configure_endpoints(lab.server, [])
        with PathManager(lab.client) as manager:
            flags = {endpoint.address: endpoint.flags for endpoint in manager.endpoints()}
        assert EndpointFlag.BACKUP in flags[LTE]
        assert EndpointFlag.BACKUP not in flags["fd01::2"]
        with lab.server:
            listener = sockets.listen((SERVER, PORT))
        with lab.client:
            client = sockets.connect((SERVER, PORT), local=(WIFI, 0), timeout_s=20)
        server, _peer = listener.accept()
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        until(lambda: len(sockets.subflows(client)) == 2, "a second subflow")
        assert {flow.local.ip for flow in sockets.subflows(client)} == {WIFI, LTE}
        for sock in (client, server, listener):
            sock.close()


@pytest.mark.live
@pytest.mark.parametrize("version", [4, 6])
def test_a_connection_managed_from_userspace(version: int) -> None:
    six = version == 6
    wifi, lte, peer = ("fd01::2", "fd02::2", "fd09::2") if six else (WIFI, LTE, SERVER)
    with Lab() as lab, Connection(lab, wifi, other=lte, address=peer) as connection:
        client, events = connection.client, connection.client_events
        manager, token = connection.client_manager, sockets.info(client).token
        first, second = sockets.subflows(client)
        assert (first.local.ip, second.local.ip) == (wifi, lte)
        assert second.remote == (peer, PORT)
        assert second.state is TcpState.ESTABLISHED
        assert [(e.id, e.address) for e in manager.addresses(token)] == [(2, lte)]

        manager.set_backup(token, second.local, second.remote, backup=True)
        told = connection.server_events.wait(EventKind.SUB_PRIORITY)
        assert (told.backup, told.remote) == (True, second.local)

        manager.destroy_subflow(token, second.local, second.remote)
        closed = events.wait(EventKind.SUB_CLOSED)
        assert (closed.token, closed.local, closed.remote) == (token, second.local, second.remote)
        assert closed.local_id == 2
        assert [flow.id for flow in sockets.subflows(client)] == [first.id]
        with pytest.raises(KernelError, match="no such subflow"):
            manager.destroy_subflow(token, second.local, second.remote)

        server_token = sockets.info(connection.server).token
        connection.server_manager.announce(server_token, "10.9.0.7", 9)
        heard = events.wait(EventKind.ANNOUNCED)
        assert heard.remote is not None
        assert (heard.remote.ip, heard.remote_id) == ("10.9.0.7", 9)
        connection.server_manager.remove(server_token, 9)
        assert events.wait(EventKind.REMOVED).remote_id == 9


@pytest.mark.live
def test_commands_say_why_they_were_refused() -> None:
    with Lab() as lab, EventMonitor(lab.client) as events:
        with lab.server:
            listener = sockets.listen((SERVER, PORT))
        with lab.client, PathManager() as manager:
            client = sockets.connect((SERVER, PORT))
            token = sockets.info(client).token
            with pytest.raises(KernelError, match="path_manager=userspace"):
                manager.create_subflow(token, LTE, (SERVER, PORT), local_id=2)
            with pytest.raises(KernelError, match="invalid token"):
                manager.create_subflow(token ^ 1, LTE, (SERVER, PORT), local_id=2)
            configure.set_path_manager(lab.client, "userspace")
            early = sockets.connect((SERVER, PORT))
            with pytest.raises(KernelError, match="ESTABLISHED event"):
                manager.create_subflow(sockets.info(early).token, LTE, (SERVER, PORT), local_id=2)
        with pytest.raises(ExperimentError, match="no MPTCP event SUB_PRIORITY within"):
            events.wait(EventKind.SUB_PRIORITY, timeout_s=0.01)
        for sock in (client, early, listener):
            sock.close()


@pytest.mark.live
def test_counters_agree_with_what_was_sent() -> None:
    size = 300_000
    with Lab() as lab, Connection(lab) as connection:
        client, server = connection.client, connection.server
        before, start = sockets.info(client), sockets.info(server)
        for _ in range(size // 20_000):  # each fits the buffers: nobody reads meanwhile
            client.sendall(bytes(20_000))
            assert len(server.recv(20_000, socket.MSG_WAITALL)) == 20_000
        until(lambda: sockets.unacked(client) == 0, "acknowledged")
        after = sockets.info(client)
        assert after.write_seq - before.write_seq == size
        assert after.unacked == 0
        assert sockets.info(server).bytes_received - start.bytes_received == size
        assert after.total_subflows == 2
        flows = sockets.subflows(server)
        # Reinjected bytes count on both subflows; every byte came at least once.
        assert sum(flow.bytes_received for flow in flows) >= size
        assert all(flow.rtt_s > 0 and flow.mss > 500 for flow in sockets.subflows(client))
        assert not sockets.is_fallback(client)


@pytest.mark.live
@pytest.mark.parametrize("name", ["cubic", "reno"])
def test_congestion_control_reaches_every_subflow(name: str) -> None:
    with Lab() as lab, Connection(lab, congestion=name) as connection:
        for node in (lab.client, lab.server):
            sockets_there = run(node, "ss", "-tniH", "state", "established").splitlines()
            algorithms = [line.split()[0] for line in sockets_there if line.startswith("\t")]
            assert algorithms == [name, name]
        assert len(sockets.subflows(connection.server)) == 2


@pytest.mark.live
def test_events_are_kept_for_the_next_wait() -> None:
    with Lab() as lab, Connection(lab) as connection:
        connection.client.close()
        connection.server.close()
        closed = connection.client_events.wait(EventKind.CLOSED)
        assert closed.token is not None
        created = EventMonitor(lab.server)
        with lab.server:
            listeners = [sockets.listen((SERVER, PORT + n)) for n in (1, 2)]
        ports = []
        for _listener in listeners:
            event = created.wait(EventKind.LISTENER_CREATED)
            assert event.local is not None
            ports.append(event.local.port)
        assert ports == [PORT + 1, PORT + 2]
        for item in (*listeners, created):
            item.close()


@pytest.mark.live
def test_a_peer_without_mptcp_is_told_apart() -> None:
    with Lab() as lab:
        with lab.server:
            plain = socket.create_server((SERVER, PORT))
        with lab.client:
            client = sockets.connect((SERVER, PORT), timeout_s=20)
        assert sockets.is_fallback(client)
        with pytest.raises(KernelError, match="plain TCP"):
            sockets.info(client)
        client.close()
        plain.close()


@pytest.mark.live
def test_settings() -> None:
    node = NetworkNamespace.create()
    configure.configure(node, checksums=True, close_timeout_s=7, add_addr_timeout_s=3)
    configure.configure(node, path_manager="userspace", stale_loss_count=2, congestion="reno")
    names = ("checksum_enabled", "close_timeout", "add_addr_timeout", "stale_loss_cnt")
    assert [node.sysctl(f"net.mptcp.{name}") for name in names] == ["1", "7", "3", "2"]
    assert node.sysctl("net.mptcp.pm_type") == "1"
    assert node.sysctl("net.ipv4.tcp_congestion_control") == "reno"
    with pytest.raises(ParameterError, match="'kernel' or 'userspace'"):
        configure.set_path_manager(node, "manual")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="'nosuch' cannot be the default"):
        configure.pin_congestion_control(node, "nosuch")
    configure.configure(node, enabled=False)
    with node, pytest.raises(FeatureError, match=r"net\.mptcp\.enabled=1"):
        sockets.make()
    configure.configure(node, enabled=True)
    with node, sockets.make() as sock, pytest.raises(ParameterError, match="not in this kernel"):
        sockets.set_congestion_control(sock, "nosuch")
    node.close()


CLIENT = (
    "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2]))).sendall(b'x')"
)


@pytest.mark.live
def test_an_unmodified_program_speaks_mptcp() -> None:
    argv, environment = as_mptcp(["python3", "-c", CLIENT, SERVER, str(PORT)])
    with Lab() as lab:
        with lab.server:
            listener = sockets.listen((SERVER, PORT))
        for command, mptcp in ((argv, True), (argv[2:], False)):
            with lab.client:
                program = subprocess.Popen(command, env=environment)
            server, _peer = listener.accept()
            assert server.recv(1) == b"x"
            assert sockets.is_fallback(server) is not mptcp
            server.close()
            assert program.wait(30) == 0
        listener.close()


def test_programs_that_cannot_be_helped(tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.write_bytes(b"\x7fELF" + bytes(60) + b"\xff Go buildinf:" + bytes(20))
    static = tmp_path / "static"
    static.write_bytes(b"\x7fELF" + bytes(100))
    for file in (go, static):
        file.chmod(0o755)
    argv, environment = as_mptcp([str(go), "-x"], {"GODEBUG": "a=1", "PATH": os.defpath})
    assert argv == [str(go), "-x"]
    assert environment["GODEBUG"] == "a=1,multipathtcp=1"
    with pytest.raises(FeatureError, match="statically linked"):
        as_mptcp([str(static)])
    with pytest.raises(ParameterError, match="not found"):
        as_mptcp(["no-such-program"])
    # Without mptcpize on the PATH
    with pytest.raises(FeatureError, match="apt install mptcpize"):
        as_mptcp([sys.executable], {"PATH": str(tmp_path)})


@pytest.mark.live
def test_the_lab_reaches_both_ways() -> None:
    with Lab() as lab:
        for local in (WIFI, LTE):
            assert "1 received" in run(lab.client, "ping", "-c1", "-W10", "-I", local, SERVER)
