"""Redirections that cannot succeed, or fail midway: the connection goes on where it was."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from redirection_lab import Scene, flowing, subflow_remotes, whole

from benchmarks._detour import PORT, SERVER
from testbed.errors import KernelError
from testbed.kernel.nftables import Nftables
from testbed.mptcp.counters import Address
from testbed.mptcp.redirection.blocker import Blocker
from testbed.mptcp.redirection.driver import Report
from testbed.mptcp.redirection.messages import Keys, Outcome
from testbed.mptcp.redirection.nexthop import NextHop
from testbed.mptcp.redirection.sampler import Sampler
from testbed.mptcp.redirection.watcher import Flow

pytestmark = pytest.mark.live


def nothing_left(scene: Scene) -> None:
    """No element of ours is in any set or map of m1 and m2."""
    for name in ("m1", "m2"):
        with Nftables(scene.lab[name]) as nft:
            assert "elements" not in nft.run("list ruleset"), name


def tried(scene: Scene, hop: NextHop, flow: Flow, timeout_s: float = 3.0) -> Report:
    return scene.redirecting(lambda r: r.redirect(flow, hop, timeout_s=timeout_s))


def unharmed(scene: Scene, transfers: Any) -> None:
    """The connection has its old subflow, and every byte gets through."""
    nothing_left(scene)
    flowing(transfers)
    assert SERVER[0] in subflow_remotes(transfers.each[0])
    whole(transfers)


def test_plain_tcp_is_known_as_such() -> None:
    with Scene() as scene:
        with scene.lab["server"]:
            listener = socket.create_server((SERVER[0], 81))
        with scene.lab["client"]:
            client = socket.create_connection((SERVER[0], 81))
        with listener, client:
            flow = Flow(Address(*client.getsockname()), Address(*client.getpeername()))
            assert not scene.watcher.connections[flow].multipath
            assert tried(scene, scene.hop(), flow).outcome is Outcome.NOT_MPTCP
        nothing_left(scene)


def test_full_limits_of_the_client() -> None:
    with Scene(add_addr_accepted=0) as scene:
        hop, transfers = scene.hop(), scene.transfers()
        flowing(transfers)
        report = tried(scene, hop, transfers.each[0].flow)
        assert report.outcome is Outcome.LIMITS, report
        unharmed(scene, transfers)


def test_a_wrong_key() -> None:
    with Scene() as scene:
        hop, transfers = scene.hop(), scene.transfers()
        flowing(transfers)
        flow = transfers.each[0].flow
        known = scene.watcher.connections[flow]
        assert known.session is not None
        session = known.session._replace(keys=Keys(1, known.session.keys.server))
        scene.watcher._connections[flow] = replace(known, session=session)
        report = tried(scene, hop, flow, timeout_s=1.0)
        assert report.outcome is Outcome.NO_ECHO, report
        unharmed(scene, transfers)


def test_a_join_that_the_server_refuses() -> None:
    with Scene() as scene:
        with Nftables(scene.lab["server"]) as nft:
            reject = "ip saddr 10.22.0.2 reject with tcp reset"
            nft.run(
                "table inet refuse { chain in {"
                f" type filter hook input priority 0; meta l4proto tcp {reject}; }}; }}"
            )
        hop, transfers = scene.hop(), scene.transfers()
        flowing(transfers)
        report = tried(scene, hop, transfers.each[0].flow)
        assert report.outcome is Outcome.REFUSED, report
        unharmed(scene, transfers)


def test_a_connection_that_closes_meanwhile() -> None:
    with Scene(rtt_s=0.02) as scene:
        hop, transfers = scene.hop(), scene.transfers()
        flowing(transfers)
        flow = transfers.each[0].flow
        assert flow in scene.watcher.connections
        whole(transfers)
        transfers.each[0].client.close()
        transfers.each[0].server.close()
        report = tried(scene, hop, flow)
        assert report.outcome in (Outcome.CLOSED, Outcome.NOT_MPTCP), report
        nothing_left(scene)


def test_a_connection_is_redirected_again_from_its_next_hop() -> None:
    from testbed.mptcp.redirection.driver import Redirector

    with Scene() as scene:
        hop, transfers = scene.hop(), scene.transfers()
        flowing(transfers)
        first = tried(scene, hop, transfers.each[0].flow)
        assert first.flow is not None, first
        flowing(transfers)
        with NextHop(scene.lab["m3"], "10.33.0.3", outward="10.33.0.3") as second:

            async def again() -> Report:
                async with Redirector(hop.watcher) as redirector:
                    assert first.flow is not None
                    return await redirector.redirect(first.flow, second)

            import asyncio

            report = asyncio.run(again())
            assert report.outcome is Outcome.REDIRECTED, report
            assert subflow_remotes(transfers.each[0]) == {"10.33.0.3"}
            flowing(transfers)
            whole(transfers)


def test_servers_with_one_port_share_a_hop() -> None:
    with Scene() as scene:
        hop = scene.hop()
        first, second = Address(SERVER[0], PORT), Address("10.9.0.3", PORT)
        for server in (first, second):
            hop.open(server)
        ports = {listen.port for listen in hop.servers.values()}
        assert len(ports) == 2
        hop.release(second)
        assert set(hop.servers) == {first}


def test_many_at_once() -> None:
    with Scene(rtt_s=0.01) as scene:
        hop, transfers = scene.hop(), scene.transfers(count=60, interval_s=0.1, chunk=500)
        flowing(transfers, beyond=1000)
        handshakes = scene.watcher.packets
        flows = [each.flow for each in transfers.each]
        reports = scene.redirecting(lambda r: r.redirect_many(flows, hop))
        assert [r.outcome for r in reports] == [Outcome.REDIRECTED] * 60, reports
        assert handshakes < 60 * 20  # of bulk data nothing came to Python
        flowing(transfers, beyond=1000)
        whole(transfers)


FAULTS: dict[str, tuple[type, str]] = {
    "sample": (Sampler, "_attach"),
    "rewrite": (NextHop, "open"),
    "inject": (Sampler, "inject"),
    "block": (Blocker, "block"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("tear_down", ["rst", "both"])
def test_a_step_that_fails(fault: str, tear_down: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name = FAULTS[fault]

    def fails(*_args: object, **_options: object) -> None:
        raise KernelError(12, f"{fault} was refused")

    with Scene() as scene:
        hop, transfers = scene.hop(), scene.transfers()
        flowing(transfers)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fails)
            report = scene.redirecting(
                lambda r: r.redirect(
                    transfers.each[0].flow, hop, tear_down=tear_down, timeout_s=1.0
                )
            )
        assert report.outcome is Outcome.FAILED, report
        assert "was refused" in report.reason
        unharmed(scene, transfers)


@pytest.mark.parametrize("number", range(4))
def test_an_injection_that_fails(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first, the second, ...: whatever the outcome, the connection lives."""
    original: Callable[..., None] = Sampler.inject
    count = 0

    def flaky(*args: Any) -> None:
        nonlocal count
        count += 1
        if count - 1 == number:
            raise OSError(105, "no buffer space")
        original(*args)

    with Scene() as scene:
        hop, transfers = scene.hop(), scene.transfers()
        flowing(transfers)
        monkeypatch.setattr(Sampler, "inject", flaky)
        report = tried(scene, hop, transfers.each[0].flow)
        monkeypatch.undo()
        assert report.outcome is Outcome.REDIRECTED, report
        flowing(transfers)
        whole(transfers)
