"""What fails while a redirection is undone or its eyes close, and a redirector that is killed."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

import pytest
from redirection_lab import Scene, flowing, subflow_remotes, whole

from benchmarks._detour import M2, M2_OUTWARD
from testbed.errors import KernelError, ParameterError
from testbed.kernel.nftables import Nftables
from testbed.mptcp import sockets
from testbed.mptcp.redirection.blocker import Blocker
from testbed.mptcp.redirection.driver import Redirector
from testbed.mptcp.redirection.messages import Abort, Outcome, TearDown
from testbed.mptcp.redirection.nexthop import NextHop
from testbed.mptcp.redirection.sampler import Sampler
from testbed.mptcp.redirection.segment import Flags
from testbed.mptcp.redirection.watcher import PacketReader

pytestmark = pytest.mark.live


def elements(scene: Scene, name: str) -> bool:
    """Is anything in a set or map of this box?"""
    with Nftables(scene.lab[name]) as nft:
        return "elements" in nft.run("list ruleset")


def failing(original: Callable[..., None], times: int) -> Callable[..., None]:
    """The same, refused the first few times."""
    left = times

    def attempt(*args: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise KernelError(errno.ENOMEM, "the removal was refused")
        original(*args)

    return attempt


@pytest.mark.parametrize("times", [1, 100])
def test_a_rewriting_that_is_not_removed(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with Scene(add_addr_accepted=0) as scene:
        hop, transfers = scene.hop(), scene.transfers()
        flowing(transfers)
        with monkeypatch.context() as patch:
            patch.setattr(NextHop, "release", failing(NextHop.release, times))
            flow = transfers.each[0].flow
            report = scene.redirecting(lambda r: r.redirect(flow, hop, timeout_s=0.5))
        assert report.outcome is Outcome.LIMITS, report
        stays = times > 1
        assert ("Unrewrite failed" in report.reason) == elements(scene, "m2") == stays
        flowing(transfers)
        whole(transfers)


@pytest.mark.parametrize("times", [0, 1, 100])
def test_an_abort_while_blocking_and_a_block_that_is_not_removed(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Scene() as scene:
        hop, transfers = scene.hop(), scene.transfers()
        flowing(transfers)
        block, left = Blocker.block, []

        async def work(redirector: Redirector) -> Any:
            def and_abort(self: Blocker, connection: Any) -> None:
                block(self, connection)
                for run in redirector._runs:
                    run.tell(Abort("enough"))

            monkeypatch.setattr(Blocker, "block", and_abort)
            report = await redirector.redirect(transfers.each[0].flow, hop, tear_down="rst")
            left.append(elements(scene, "m1"))
            return report

        monkeypatch.setattr(Blocker, "unblock", failing(Blocker.unblock, times))
        report = scene.redirecting(work)
        assert report.outcome is Outcome.ABORTED, report
        assert ("Unblock failed" in report.reason) == (times > 1) == left[0]
        assert not elements(scene, "m2")
        flowing(transfers)
        whole(transfers)


def test_a_next_hop_whose_watcher_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with Scene() as scene:
        hop, transfers = scene.hop(), scene.transfers()
        flowing(transfers)
        read = PacketReader.read

        def fails(self: PacketReader) -> Any:
            if self is hop.watcher._reader:
                raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))
            return read(self)

        monkeypatch.setattr(PacketReader, "read", fails)
        flow = transfers.each[0].flow
        report = scene.redirecting(lambda r: r.redirect(flow, hop))
        assert report.outcome is Outcome.ABORTED, report
        assert os.strerror(errno.ENETDOWN) in report.reason
        assert not elements(scene, "m1")
        assert not elements(scene, "m2")
        flowing(transfers)
        with pytest.raises(ParameterError, match="closed watcher"):
            scene.redirecting(lambda r: r.redirect(flow, hop))
        whole(transfers)


MOMENTS: dict[str, tuple[type, str, int]] = {  # after so many calls of it
    "the rewriting is installed": (NextHop, "open", 1),
    "it was announced": (Sampler, "inject", 1),
    "one end was asked to spare the old subflow": (Sampler, "inject", 2),
    "the old subflow was blocked": (Blocker, "block", 1),
    "one end was reset": (Sampler, "inject", 4),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_redirector_that_is_killed(moment: str) -> None:
    owner, name, calls = MOMENTS[moment]
    with Scene() as scene:
        hop, transfers = scene.hop(), scene.transfers()
        flowing(transfers)
        flow, original = transfers.each[0].flow, getattr(owner, name)

        def doomed() -> None:
            left = calls

            def then_dies(*args: Any) -> None:
                nonlocal left
                original(*args)
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

            setattr(owner, name, then_dies)
            scene.redirecting(lambda r: r.redirect(flow, hop))

        process = get_context("fork").Process(target=doomed)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it was not killed"
        flowing(transfers)
        whole(transfers)


def translating(scene: Scene) -> None:
    """Have m1 hide its clients behind its own address, as a home's router does."""
    chain, rule = "type nat hook postrouting priority srcnat", 'oifname "to-x" masquerade'
    with Nftables(scene.lab["m1"]) as nft:
        nft.run(f"table inet own {{\nchain out {{\n{chain}\n{rule}\n}}\n}}\n")


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("tear_down", list(TearDown))
def test_a_box_that_translates_addresses_itself(tear_down: TearDown, ipv6: bool) -> None:
    with Scene() as scene:
        translating(scene)
        hop, transfers = scene.hop(), scene.transfers(ipv6=ipv6)
        (transfer,) = transfers.each
        flowing(transfers)
        known = scene.watcher.connections[transfer.flow]
        assert known.outside.client.ip not in ("", transfer.flow.client.ip), "it translates"
        report = scene.redirecting(lambda r: r.redirect(transfer.flow, hop, tear_down=tear_down))
        assert report.outcome is Outcome.REDIRECTED, report
        stays = tear_down is TearDown.MP_PRIO
        assert subflow_remotes(transfer) == {M2[ipv6]} | (
            {transfer.flow.server.ip} if stays else set()
        )
        seen = {each.remote.ip for each in sockets.subflows(transfer.server)}
        assert seen == {M2_OUTWARD[ipv6]} | ({known.outside.client.ip} if stays else set())
        flowing(transfers)
        whole(transfers)


@pytest.mark.parametrize("translated", [False, True])
@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("up", [False, True])
def test_resets_that_are_all_lost(
    up: bool, ipv6: bool, translated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever goes on sending learns from the block that the old subflow is gone."""
    inject = Sampler.inject

    def lost(self: Sampler, connection: Any, direction: Any, segment: Any) -> None:
        if not segment.flags & Flags.RST:
            inject(self, connection, direction, segment)

    monkeypatch.setattr(Sampler, "inject", lost)
    with Scene() as scene:
        if translated:
            translating(scene)
        hop, transfers = scene.hop(), scene.transfers(up=up, ipv6=ipv6)
        (transfer,) = transfers.each
        flowing(transfers)

        async def work(redirector: Redirector) -> None:
            report = await redirector.redirect(transfer.flow, hop, tear_down="rst")
            assert report.outcome is Outcome.REDIRECTED, report
            deadline = time.monotonic() + 20
            while len(sockets.subflows(transfer.sender)) > 1:
                assert time.monotonic() < deadline, "the sender still has its old subflow"
                await asyncio.sleep(0.01)

        scene.redirecting(work)
        flowing(transfers)
        whole(transfers)
