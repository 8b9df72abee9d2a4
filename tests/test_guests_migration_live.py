"""Real moves of a real guest, and everything that may come in between, in each of their phases."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from migration_lab import Deed, Lab, between, cancel, cut, kill_source, kill_target, mend

from testbed import doctor
from testbed.errors import ExperimentError, FeatureError
from testbed.guests import Migration, MigrationOptions
from testbed.guests.migration import Phase, Progress, why_no_userfault
from testbed.network import Network

ABSENT = doctor.reason("guests")
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=ABSENT or "not skipped")

POST_COPY_WORKS = not why_no_userfault()
GOES_ON = r"\(it goes on where it was\)$"

# a first pass of some seconds; never ready for the last one; ready for it at once
LONG = MigrationOptions(bandwidth=100e6)
ENDLESS = MigrationOptions(bandwidth=100e6, downtime_limit_s=0.001, compression="zstd")
AT_ONCE = MigrationOptions(downtime_limit_s=60)
POST_COPY = MigrationOptions(method="post-copy", passes_before_post_copy=0, bandwidth=100e6)


def at_setup(_progress: Progress) -> bool:
    return True


def in_first_pass(progress: Progress) -> bool:
    return progress.phase is Phase.PRE_COPY and progress.sent > 1 << 20


def in_later_pass(progress: Progress) -> bool:
    return progress.phase is Phase.PRE_COPY and progress.passes > 2


def in_last_pass(progress: Progress) -> bool:
    return progress.sent > 4 << 20


def never(_progress: Progress) -> bool:
    return False


def in_post_copy(progress: Progress) -> bool:
    return progress.phase is Phase.POST_COPY


PHASES = [
    (LONG, at_setup, False),
    (LONG, in_first_pass, False),
    (ENDLESS, in_later_pass, False),
    (AT_ONCE, in_last_pass, True),
]


@pytest.mark.live
@pytest.mark.parametrize("deed", [kill_target, cancel, cut])
def test_before_the_guest_resumes_it_goes_on_at_the_source(deed: Deed) -> None:
    why = {kill_target: "", cancel: "cancelled ", cut: "nothing got through for 1 s "}[deed]

    async def use(net: Network) -> None:
        lab = await Lab.boot(net)
        for options, when, slowly in PHASES:
            options = replace(options, stall_limit_s=1 if deed is cut else 20)
            match = f"^migration of guest to .*{why}{GOES_ON}"
            await lab.fails(match, options, when, deed, slowly=slowly)
            assert lab.stood_still() == (when is in_last_pass)
            mend(lab)
            await lab.lives()
        await lab.move(MigrationOptions(), never, deed)  # all of it was undone: it may move
        await lab.lives()
        assert lab.here == "b"
        await lab.close()

    between(use)


@pytest.mark.live
def test_a_guest_whose_source_dies_is_lost_and_the_run_says_so(tmp_path: Path) -> None:
    state = tmp_path / "state"
    phases = [*PHASES, (POST_COPY, in_post_copy, False)] if POST_COPY_WORKS else PHASES

    async def use(net: Network) -> None:
        lab = await Lab.boot(net)
        await lab.vm.save(state)
        for options, when, slowly in phases:
            await lab.close()
            lab = await Lab.restore(net, state)
            match = (
                r"^migration of guest to .*\(the guest is lost(: it ran| with the source's QEMU)"
            )
            await lab.fails(match, options, when, kill_source, slowly=slowly)
            assert await lab.vm.crashed == "guest guest: QEMU was killed by signal 9"
        await lab.close()

    between(use)


@pytest.mark.live
@pytest.mark.skipif(not POST_COPY_WORKS, reason=why_no_userfault() or "not skipped")
def test_post_copy_cannot_go_back_and_says_so(tmp_path: Path) -> None:
    state = tmp_path / "state"
    too_late: list[str] = []

    def try_to_cancel(_lab: Lab, migration: Migration) -> None:
        with pytest.raises(ExperimentError, match=r"too late to cancel; migrate it back$") as said:
            migration.cancel()
        too_late.append(str(said.value))

    async def use(net: Network) -> None:
        lab = await Lab.boot(net)
        await lab.vm.save(state)
        for deed, why in ((kill_target, ""), (cut, "nothing got through for 1 s")):
            await lab.close()
            lab = await Lab.restore(net, state)
            match = rf"^migration of guest to .*{why}.*\(the guest is lost: it ran at the target, w"
            await lab.fails(match, replace(POST_COPY, stall_limit_s=1), in_post_copy, deed)
            mend(lab)
        await lab.close()
        lab = await Lab.restore(net, state)
        report = await lab.move(POST_COPY, in_post_copy, try_to_cancel)
        assert too_late
        assert report.method == "post-copy"
        assert [phase for phase, _begun, _ended in report.phases()] == list(Phase)[:4]
        await lab.lives()
        await lab.close()

    between(use)


@pytest.mark.live
def test_whatever_way_it_moves_its_memory_is_whole() -> None:
    ways = [
        MigrationOptions(compression="zstd", streams=2),
        MigrationOptions(compression="zlib"),
        MigrationOptions(streams=3),
        MigrationOptions(compression="xbzrle", auto_converge=True, downtime_limit_s=0.02),
        MigrationOptions(mptcp=True),
        MigrationOptions(mptcp=True, compression="zstd"),
    ]
    if POST_COPY_WORKS:
        ways.append(replace(POST_COPY, bandwidth=None, passes_before_post_copy=1))
    told: list[Progress] = []

    def watch(progress: Progress) -> bool:
        told.append(progress)
        return False

    async def use(net: Network) -> None:
        lab = await Lab.boot(net)
        await lab.vm.run("dd if=/dev/urandom of=/run/noise bs=1M count=8")
        digest = await lab.vm.run("sha256sum /run/noise")
        sizes = {}
        for options in ways:
            told.clear()
            report = await lab.move(options, watch, cancel)
            assert await lab.vm.run("sha256sum /run/noise") == digest
            await lab.lives()
            moments = report.moments
            assert moments.ordered_s < moments.stopped_s < moments.resumed_s
            assert moments.resumed_s <= moments.completed_s < time.monotonic()
            assert [p.sent for p in told] == sorted(p.sent for p in told)
            assert 0 < told[-1].sent <= report.bytes
            sizes[options] = report.bytes
        assert sizes[ways[0]] < sizes[ways[2]]  # compressed, and not
        await lab.close()

    between(use)


@pytest.mark.live
def test_a_target_that_refuses_tells_why() -> None:
    async def use(net: Network) -> None:
        lab = await Lab.boot(net)
        larger = replace(lab.vm.machine, memory_mb=lab.vm.machine.memory_mb + 32)
        match = rf"the target refuses: Size mismatch: pc.ram: .*{GOES_ON}"
        await lab.fails(match, MigrationOptions(), never, cancel, machine=larger)
        await lab.lives()
        with pytest.raises(FeatureError, match="no congestion control nonsense"):
            await lab.move(MigrationOptions(congestion="nonsense"), never, cancel)
        await lab.lives()
        await lab.close()

    between(use)
