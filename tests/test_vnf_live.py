"""Network functions in the kernel: each does to real packets what its elements say."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import subprocess
from pathlib import Path

import pytest
from vnf_lab import Lab, configure, example

from testbed.errors import KernelError, ParameterError
from testbed.vnf.function import Device, Function
from testbed.vnf.handlers import HandlerError

FIREWALL = """
define($PUBLIC 10.2.0.100);
fw :: IPFilter(allow established or related,
               allow new and tcp dst port 80,
               deny all);
nat :: IPRewriter(pattern $PUBLIC 1024-65535 - - 0 1, drop);
FromDevice(eth0) -> CheckIPHeader(14) -> in :: Counter -> fw -> nat -> ToDevice(eth1);
FromDevice(eth1) -> [1] nat [1] -> back :: Counter -> ToDevice(eth0);
"""


@pytest.mark.live
def test_a_firewall_filters_and_a_rewriter_translates_there_and_back():
    with Lab() as lab:
        client, server = lab.client(), lab.server(gateway="")
        function = lab.function(FIREWALL, "10.2.0.100/32")
        listener = lab.listen(server, 80)
        lab.listen(server, 81)
        connection = lab.connect(client, "10.2.0.1", 80)
        accepted, peer = listener.accept()
        assert peer[0] == "10.2.0.100"
        connection.sendall(b"there")
        assert accepted.recv(10) == b"there"
        accepted.sendall(b"back")
        assert connection.recv(10) == b"back"
        assert int(function.read("in.count")) >= 3
        assert int(function.read("back.byte_count")) >= 4
        assert function.read("nat.nmappings") == "1"
        assert "10.2.0.100" in function.read("nat.mappings")
        counted = int(function.read("in.count"))
        function.write("in.reset")
        assert int(function.read("in.count")) < counted
        forbidden = lab.socket(client)
        forbidden.settimeout(0.3)
        with pytest.raises(TimeoutError):
            forbidden.connect(("10.2.0.1", 81))
        assert int(function.read("in.count")) >= 1
        assert function.read("nat.nmappings") == "1"
        accepted.close()


@pytest.mark.live
def test_a_missing_device_is_named():
    with Lab() as lab, pytest.raises(ParameterError, match="uses device eth2"):
        lab.function("FromDevice(eth0) -> ToDevice(eth2);")


FORWARD = "FromDevice(eth0) -> c :: Counter -> ToDevice(eth1); FromDevice(eth1) -> ToDevice(eth0);"


@pytest.mark.live
def test_what_no_graph_sends_anywhere_is_dropped_and_local_addresses_are_no_way_around():
    """A packet for the function itself follows the graph, and so leaves by the device."""
    with Lab() as lab:
        client, server = lab.client(), lab.server()
        lab.function("FromDevice(eth0) -> IPFilter(allow udp) -> ToDevice(eth1);")
        received = lab.listen(server, 5000, socket.SOCK_DGRAM)
        sender = lab.socket(client, socket.SOCK_DGRAM)
        sender.sendto(b"passes", ("10.2.0.1", 5000))
        assert received.recv(100) == b"passes"
        blocked = lab.socket(client)
        blocked.settimeout(0.3)
        with pytest.raises(TimeoutError):
            blocked.connect(("10.2.0.1", 80))
        own = lab.socket(client)
        own.settimeout(0.3)
        with pytest.raises(TimeoutError):  # refused, if the function's own stack answered
            own.connect(("10.1.0.254", 80))


@pytest.mark.live
def test_a_paused_function_forwards_nothing_and_goes_on():
    with Lab() as lab:
        client, server = lab.client(), lab.server()
        function = lab.function(FORWARD)
        received = lab.listen(server, 5000, socket.SOCK_DGRAM)
        sender = lab.socket(client, socket.SOCK_DGRAM)
        function.pause()
        function.pause()
        counted = function.read("c.count")
        for _ in range(5):
            sender.sendto(b"paused", ("10.2.0.1", 5000))
        received.settimeout(0.2)
        with pytest.raises(TimeoutError):
            received.recv(100)
        assert function.read("c.count") == counted
        function.resume()
        function.resume()
        received.settimeout(10)
        sender.sendto(b"resumed", ("10.2.0.1", 5000))
        assert received.recv(100) == b"resumed"


@pytest.mark.live
def test_a_destroyed_function_is_gone_and_another_takes_its_place():
    with Lab() as lab:
        client, server = lab.client(), lab.server()
        received = lab.listen(server, 5000, socket.SOCK_DGRAM)
        sender = lab.socket(client, socket.SOCK_DGRAM)
        inside = dataclasses.replace(lab.devices()["eth0"], mac="02:00:00:00:00:01")
        outside = dataclasses.replace(lab.devices()["eth1"], mac="02:00:00:00:00:02")
        for number in range(3):
            with Function.instantiate(FORWARD, devices={"eth0": inside, "eth1": outside}):
                sender.sendto(bytes([number]), ("10.2.0.1", 5000))
                assert received.recv(100) == bytes([number])
            with lab.platform:
                assert "function-eth0" not in [name for _, name in socket.if_nameindex()]


@pytest.mark.live
def test_nothing_is_left_of_a_function_that_cannot_start():
    with Lab() as lab:
        devices = lab.devices()
        devices["eth1"] = dataclasses.replace(devices["eth1"], bridge="nowhere")
        with pytest.raises(KernelError, match="device eth1 of function"):
            Function.instantiate(FORWARD, devices=devices)
        Function.instantiate(FORWARD, devices=lab.devices()).destroy()


@pytest.mark.live
def test_a_rewriter_forwards_a_port_to_a_server_inside():
    with Lab() as lab:
        inside, outside = lab.client(7), lab.server()
        lab.function(
            """rw :: IPRewriter(pattern - - 10.1.0.7 8080 0 1, drop);
            FromDevice(eth1) -> IPFilter(allow tcp dst port 80) -> rw
                -> lookup :: IPClassifier(dst host 10.1.0.7, -);
            lookup [0] -> ToDevice(eth0); lookup [1] -> Discard;
            FromDevice(eth0) -> [1] rw [1] -> ToDevice(eth1);"""
        )
        listener = lab.listen(inside, 8080)
        connection = lab.connect(outside, "10.2.0.254", 80)
        accepted, peer = listener.accept()
        assert peer[0] == "10.2.0.1"
        accepted.sendall(b"x")
        assert connection.recv(1) == b"x"
        accepted.close()


@pytest.mark.live
@pytest.mark.parametrize("mode", ["rr", "random", "hash"])
def test_a_load_balancer_spreads_connections_by_weight(mode: str):
    with Lab() as lab:
        client, servers = lab.client(), [lab.server(1), lab.server(2)]
        text = example("load_balancer").replace("10.2.0.2, MODE rr", f"10.2.0.2 3, MODE {mode}")
        function = lab.function(text, "10.2.0.100/32")
        listeners = [lab.listen(server, 80) for server in servers]
        connections = [lab.connect(client, "10.2.0.100", 80) for _ in range(40)]
        for listener in listeners:
            listener.setblocking(False)
        taken = [0, 0]
        for number, listener in enumerate(listeners):
            with contextlib.suppress(BlockingIOError):
                while True:
                    accepted, _peer = listener.accept()
                    accepted.sendall(bytes([number]))
                    accepted.close()
                    taken[number] += 1
        assert sum(taken) == len(connections)
        assert sum(connection.recv(1) == b"\1" for connection in connections) == taken[1]
        assert 0 < taken[0] < taken[1]
        if mode == "rr":
            assert taken == [10, 30]
        assert function.read("lb.servers") == "10.2.0.1\n10.2.0.2"
        assert int(function.read("lb.nmappings")) == 40


@pytest.mark.live
def test_a_connection_with_a_text_in_it_is_labelled_for_good():
    with Lab() as lab:
        client, server = lab.client(), lab.server()
        function = lab.function(example("dpi"), values={"RATE": "100Mbps"})
        listener = lab.listen(server, 80)
        open_ones = []
        kinds = {"p2p": b"\x13bittorrent PROTOCOL", "tls": b"\x16\x03\x01\x02", "rest": b"GET /"}
        for kind, hello in kinds.items():
            connection = lab.connect(client, "10.2.0.1", 80)
            accepted, _peer = listener.accept()
            connection.sendall(hello)
            assert accepted.recv(100) == hello
            others = {each: function.read(f"{each}.count") for each in kinds if each != kind}
            before = int(function.read(f"{kind}.count"))
            for _ in range(5):
                connection.sendall(b"more")
                assert accepted.recv(100) == b"more"
            assert int(function.read(f"{kind}.count")) >= before + 5
            if kind != "rest":
                assert {each: function.read(f"{each}.count") for each in others} == others
            open_ones.append(accepted)  # what a close sends would count, too
        assert function.read("dpi.matches") == "1\n1"
        function.write("dpi.reset")
        assert function.read("dpi.matches") == "0\n0"
        for each in open_ones:
            each.close()


@pytest.mark.live
def test_a_rate_limiter_drops_what_is_above_its_rate_and_takes_another():
    text = """FromDevice(eth0) -> limit :: RateLimiter(80kbps, BURST 5000) -> c :: Counter
        -> ToDevice(eth1); FromDevice(eth1) -> ToDevice(eth0);"""
    with Lab() as lab:
        client, _server = lab.client(), lab.server()
        function = lab.function(text)
        sender = lab.socket(client, socket.SOCK_DGRAM)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

        def passed() -> int:
            function.write("c.reset")
            for _ in range(100):
                sender.sendto(bytes(1000), ("10.2.0.1", 5000))
            return int(function.read("c.count"))

        passed()
        limited = passed()
        assert limited < 50
        function.write("limit.rate", "10Gbps")
        assert function.read("limit.rate") == "10000000000bps"
        assert passed() > limited
        with pytest.raises(HandlerError, match="'fast' is no bandwidth"):
            function.write("limit.rate", "fast")


@pytest.mark.live
def test_a_shaper_delays_by_its_rate_serves_the_urgent_first_and_takes_another_rate():
    with Lab() as lab:
        client, server = lab.client(), lab.server()
        function = lab.function(example("shaper"), values={"RATE": "1Mbps"})
        voice = lab.listen(server, 5004, socket.SOCK_DGRAM)
        other = lab.listen(server, 5000, socket.SOCK_DGRAM)
        sender = lab.socket(client, socket.SOCK_DGRAM)
        for _ in range(50):  # 52 KB: 0.4 s
            sender.sendto(bytes(1000), ("10.2.0.1", 5000))
        sender.sendto(b"urgent", ("10.2.0.1", 5004))
        assert voice.recv(100) == b"urgent"
        assert int(function.read("rest.length")) > 0  # it has overtaken these
        assert function.read("urgent.length") == "0"
        assert function.read("shaper.rate") == "1000000bps"
        function.write("shaper.rate", "10Gbps")
        assert function.read("shaper.rate") == "10000000000bps"
        for _ in range(50):
            assert len(other.recv(2000)) == 1000
        assert function.read("rest.drops") == "0"
        function.write("shaper.rate", "100kbps")
        for _ in range(400):  # more than the queue of 200 holds
            sender.sendto(bytes(1000), ("10.2.0.1", 5000))
        assert int(function.read("rest.drops")) > 0


@pytest.mark.live
def test_a_routing_table_chooses_device_and_next_hop():
    """10.9.0.1 is behind a host that is no next hop of any routing table but the element's."""
    with Lab() as lab:
        client, hop = lab.client(), lab.server(3)
        lab.function(
            """rt :: StaticIPLookup(10.9.0.0/16 10.2.0.3 0, 10.1.0.0/24 1, 0.0.0.0/0 2);
            FromDevice(eth0) -> rt; rt [0] -> ToDevice(eth1); rt [1] -> ToDevice(eth0);
            rt [2] -> Discard; FromDevice(eth1) -> ToDevice(eth0);"""
        )
        configure(hop, 1, "10.9.0.1/32")
        received = lab.listen(hop, 5000, socket.SOCK_DGRAM)
        lab.socket(client, socket.SOCK_DGRAM).sendto(b"over a hop", ("10.9.0.1", 5000))
        assert received.recv(100) == b"over a hop"


@pytest.mark.live
def test_a_tee_gives_a_copy_to_another_device_even_of_what_is_dropped():
    with Lab() as lab:
        client, server = lab.client(), lab.server()
        function = lab.function(
            """FromDevice(eth0) -> IPFilter(allow udp) -> t :: Tee(2);
            t [0] -> dropped :: Counter -> Discard;
            t [1] -> copies :: Counter -> ToDevice(eth1); FromDevice(eth1) -> ToDevice(eth0);"""
        )
        received = lab.listen(server, 5000, socket.SOCK_DGRAM)
        lab.socket(client, socket.SOCK_DGRAM).sendto(b"copy", ("10.2.0.1", 5000))
        assert received.recv(100) == b"copy"
        assert function.read("dropped.count") == function.read("copies.count") == "1"


@pytest.mark.live
def test_http_is_given_to_a_proxy_in_the_function_and_the_rest_passes():
    with Lab() as lab:
        client, server = lab.client(), lab.server()
        function = lab.function(
            """FromDevice(eth0) -> HTTPCache(3128) -> ToDevice(eth1);
            FromDevice(eth1) -> ToDevice(eth0);"""
        )
        proxy = lab.listen(function.namespace, 3128)
        origin, other = lab.listen(server, 80), lab.listen(server, 81)
        connection = lab.connect(client, "10.2.0.1", 80)
        accepted, _peer = proxy.accept()
        first = accepted.getsockopt(socket.SOL_IP, 80, 16)  # SO_ORIGINAL_DST
        assert (socket.inet_ntoa(first[4:8]), int.from_bytes(first[2:4], "big")) == ("10.2.0.1", 80)
        fetch = lab.connect(function.namespace, "10.2.0.1", 80)
        fetched, peer = origin.accept()
        assert peer[0] == "10.2.0.254"
        fetched.sendall(b"page")
        accepted.sendall(fetch.recv(10))
        assert connection.recv(10) == b"page"
        lab.connect(client, "10.2.0.1", 81)
        passed, peer = other.accept()
        assert peer[0] == "10.1.0.1"
        for each in (accepted, fetched, passed):
            each.close()


@pytest.mark.live
def test_ipv6_passes_the_same_graph():
    text = """FromDevice(eth0) -> IPFilter(allow udp dst port 5000 and src net fd01::/64)
        -> c :: Counter -> ToDevice(eth1); FromDevice(eth1) -> ToDevice(eth0);"""
    with Lab() as lab:
        client, server = lab.client(), lab.server()
        devices = lab.devices()
        for name, address in (("eth0", "fd01::254/64"), ("eth1", "fd02::254/64")):
            addresses = [*devices[name].addresses, address]
            devices[name] = dataclasses.replace(devices[name], addresses=addresses)
        configure(client, 2, "fd01::1/64", via="fd01::254")
        configure(server, 2, "fd02::1/64", via="fd02::254")
        with Function.instantiate(text, devices=devices) as function:
            with server:
                received = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            with client:
                sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            with received, sender:
                received.settimeout(10)
                received.bind(("fd02::1", 5000))
                sender.sendto(b"six", ("fd02::1", 5001))
                sender.sendto(b"six", ("fd02::1", 5000))
                assert received.recv(100) == b"six"
            assert function.read("c.count") == "1"


@pytest.mark.live
def test_thirty_functions_at_once_each_forward():
    with Lab() as lab, contextlib.ExitStack() as stack:
        client, server = lab.client(), lab.server(gateway="")
        received = lab.listen(server, 5000, socket.SOCK_DGRAM)
        for number in range(1, 31):
            devices = {
                "eth0": Device(
                    platform=lab.platform, addresses=[f"10.1.0.{number + 100}/24"], bridge="inside"
                ),
                "eth1": Device(
                    platform=lab.platform, addresses=[f"10.2.0.{number + 100}/24"], bridge="outside"
                ),
            }
            values = {"PUBLIC": f"10.2.0.{number + 100}"}
            function = Function.instantiate(
                FIREWALL.replace("tcp dst port 80", "udp"),
                devices=devices,
                values=values,
                name=f"f{number}",
            )
            stack.callback(function.destroy)
        for number in range(1, 31):
            configure(client, 2, route="10.2.0.0/24", via=f"10.1.0.{number + 100}")
            lab.socket(client, socket.SOCK_DGRAM).sendto(bytes([number]), ("10.2.0.1", 5000))
            data, peer = received.recvfrom(100)
            assert (data, peer[0]) == (bytes([number]), f"10.2.0.{number + 100}")


# -- handlers ------------------------------------------------------------------------------------


@pytest.mark.live
def test_handlers_that_are_not_there_are_named():
    with Lab() as lab:
        function = lab.function(FORWARD)
        assert function.read("c.class") == "Counter"
        assert function.read("FromDevice@1.config") == "eth0"
        assert function.read("list").splitlines()[:2] == ["5", "c"]
        assert "c.count" not in function.read("handlers")
        assert "count\tr" in function.read("c.handlers")
        again = function.read("config")
        with Function.instantiate(again, devices=lab.devices(), name="g") as other:
            assert other.read("config") == again
        for handler, remedy in (
            ("c.cout", "did you mean count"),
            ("d.count", "no element named 'd'"),
            ("nothing", "the function has no read handler"),
        ):
            with pytest.raises(HandlerError, match=remedy):
                function.read(handler)
        with pytest.raises(HandlerError, match="c has no write handler 'count'"):
            function.write("c.count", "1")


@pytest.mark.live
def test_handlers_over_a_control_socket(tmp_path: Path):
    with Lab() as lab:
        function = lab.function(
            """FromDevice(eth0) -> c :: Counter -> q :: Queue(10) -> s :: BandwidthShaper(1Mbps)
            -> ToDevice(eth1);"""
        )
        path = tmp_path / "control"
        function.control(path)
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(10)
            link.connect(str(path))
            stream = link.makefile("rw", newline="\r\n")

            def ask(line: str) -> str:
                stream.write(line + "\r\n")
                stream.flush()
                return stream.readline().rstrip()

            assert stream.readline() == "Click::ControlSocket/1.3\r\n"
            assert ask("READ c.count") == "200 Read handler 'c.count' OK"
            assert stream.readline() == "DATA 1\r\n"
            assert stream.read(1).isdigit()
            assert ask("WRITE s.rate 2Mbps") == "200 Write handler 's.rate' OK"
            assert function.read("s.rate") == "2000000bps"
            assert ask("WRITEDATA s.rate 5\r\n3Mbps") == "200 Write handler 's.rate' OK"
            assert ask("READ s.rate").startswith("200")
            assert stream.readline() == "DATA 10\r\n"
            assert stream.read(10) == "3000000bps"
            assert ask("CHECKWRITE s.rate") == "200 Write handler 's.rate' OK"
            assert ask("CHECKREAD s.nothing").startswith("511 ")
            assert ask("READ x.count").startswith("510 no element named 'x'")
            assert ask("WRITE s.rate fast").startswith("520 s.rate: 'fast' is no bandwidth")
            assert ask("READ").startswith("501 ")
            assert ask("DANCE").startswith("500 ")
            assert ask("LIST").startswith("200 Read handler 'list' OK")
            assert stream.readline().startswith("DATA ")
            assert stream.read(4).startswith("5\nc\n")
        function.destroy()
        assert not path.exists()


@pytest.mark.live
def test_paint_stays_with_a_packet_and_pings_of_the_function_are_answered():
    text = """FromDevice(eth0) -> kind :: IPClassifier(udp, icmp, -);
        kind [0] -> Paint(2) -> join :: PaintSwitch; kind [1] -> Paint(1) -> join;
        kind [2] -> join; join [0] -> Discard; join [1] -> ICMPPingResponder -> Discard;
        join [2] -> udp :: Counter -> CheckPaint(2) -> ToDevice(eth1);"""
    with Lab() as lab:
        client, server = lab.client(), lab.server()
        function = lab.function(text)
        received = lab.listen(server, 5000, socket.SOCK_DGRAM)
        lab.socket(client, socket.SOCK_DGRAM).sendto(b"painted", ("10.2.0.1", 5000))
        assert received.recv(100) == b"painted"
        assert function.read("udp.count") == "1"
        ping = ["ping", "-n", "-c", "1", "-W", "10"]
        with client:
            assert subprocess.run([*ping, "10.1.0.254"], capture_output=True).returncode == 0
            ping[-1] = "1"
            assert subprocess.run([*ping, "10.2.0.1"], capture_output=True).returncode == 1
