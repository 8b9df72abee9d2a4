"""Network functions in the kernel: each does to real packets what its elements say."""

from __future__ import annotations

import pytest
from vnf_lab import Lab

from testbed.errors import ParameterError

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
        function.write("in.reset")
        assert function.read("in.count") == "0"
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
