"""Live connections are redirected: real kernels at both ends, every byte accounted for."""

from __future__ import annotations

import pytest
from redirection_lab import Scene, flowing, subflow_remotes, whole

from benchmarks._detour import M2, M3_OUTWARD
from testbed.mptcp.redirection.driver import Redirector
from testbed.mptcp.redirection.messages import Outcome, TearDown
from testbed.mptcp.redirection.nexthop import NextHop

pytestmark = pytest.mark.live


@pytest.mark.parametrize("tear_down", list(TearDown))
@pytest.mark.parametrize(
    ("up", "ipv6"), [(True, False), (False, False), (True, True), (False, True)]
)
def test_a_connection_goes_on_over_the_next_hop(up: bool, ipv6: bool, tear_down: TearDown) -> None:
    with Scene() as scene:
        hop, transfers = scene.hop(), scene.transfers(up=up, ipv6=ipv6)
        (transfer,) = transfers.each
        flowing(transfers)
        report = scene.redirecting(lambda r: r.redirect(transfer.flow, hop, tear_down=tear_down))
        assert report.outcome is Outcome.REDIRECTED, report
        assert report.flow is not None
        assert report.flow.server.ip == M2[ipv6]
        left = (
            {M2[ipv6]} if tear_down is not TearDown.MP_PRIO else {M2[ipv6], transfer.flow.server.ip}
        )
        assert subflow_remotes(transfer) == left
        flowing(transfers)
        whole(transfers)


def test_a_chain_of_hops() -> None:
    with Scene(rtt_s=0.01) as scene:
        hop, transfers = scene.chain(), scene.transfers()
        flowing(transfers)
        report = scene.redirecting(lambda r: r.redirect(transfers.each[0].flow, hop))
        assert report.outcome is Outcome.REDIRECTED, report
        (at_m2,) = hop.watcher.connections.values()
        (at_m3,) = hop.onward.watcher.connections.values()
        assert at_m2.outside == at_m3.inside
        assert at_m3.outside.server == transfers.each[0].flow.server
        flowing(transfers)
        whole(transfers)


def test_to_and_fro_while_ports_are_used_again() -> None:
    with Scene() as scene:
        scene.lab["client"].set_sysctls({"net.ipv4.ip_local_port_range": "40000 40001"})
        hops = [scene.hop(), scene.enter(NextHop(scene.lab["m3"], M3_OUTWARD, outward=M3_OUTWARD))]
        transfers = scene.transfers()
        flowing(transfers)

        async def work(redirector: Redirector) -> None:
            flow, boxes = transfers.each[0].flow, [Redirector(hop.watcher) for hop in hops]
            for number in range(8):
                report = await redirector.redirect(flow, hops[number % 2])
                assert report.outcome is Outcome.REDIRECTED, (number, report)
                assert report.flow is not None
                flow, redirector = report.flow, boxes[number % 2]
            for box in boxes:
                await box.close()

        scene.redirecting(work)
        whole(transfers)
