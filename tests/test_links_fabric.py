"""The fabric alive: what its worker does beyond what every engine must."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import testbed
from testbed.errors import EngineError, KernelError
from testbed.kernel import RtNetlink, packet_ring, rtnetlink
from testbed.kernel.packet_ring import FrameSender, PacketRing
from testbed.links import Engines, LinkSpec, offloads
from testbed.links.calibrate import calibrate
from testbed.links.fabric.engine import FabricEngine
from testbed.links.rig import Rig

NOBODY = 65534


def fabric(spec: LinkSpec | None = None) -> Rig:
    spec = spec or LinkSpec(delay="1ms")
    return Rig(Engines(prefer="fabric"), (spec, spec))


def worker(rig: Rig) -> FabricEngine:
    assert isinstance(rig.engine, FabricEngine)
    return rig.engine


def exchange(rig: Rig, frames: list[bytes]) -> list[bytes]:
    """Send frames from a to b as they are; what b receives."""
    with rig.a:
        sender = FrameSender("a")
    with rig.b:
        ring = PacketRing(slots=512)
    for frame in frames:
        sender.send(frame)
    got: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(got) < len(frames) and time.monotonic() < deadline:
        got += [frame for port in ring.read(100).values() for _arrival, frame in port]
        time.sleep(0.001)
    sender.close()
    ring.close()
    return got


def set_link(rig: Rig, *, mtu: int = 0, up: bool | None = None) -> None:
    """Change both ends of both pairs (`mtu`), or b alone (`up`)."""
    assert rig.engine is not None
    everywhere = {rig.a: (10,), rig.b: (11,), rig.engine.namespace: (10, 11)}
    for namespace, indexes in everywhere.items() if mtu else [(rig.b, (11,))]:
        with namespace:
            netlink = RtNetlink()
            netlink.batch([rtnetlink.set_link(i, mtu=mtu, up=up, arp=False) for i in indexes])
            netlink.close()


ETHERNET = b"\x02\0\0\0\0\x0b\x02\0\0\0\0\x0a"


@pytest.mark.live
def test_frames_arrive_as_they_were_sent() -> None:
    plain = ETHERNET + b"\x88\xb5" + bytes(range(256))
    tagged = ETHERNET + b"\x81\x00\x20\x05" + b"\x88\xb5" + bytes(100)
    service = ETHERNET + b"\x88\xa8\x00\x07" + b"\x88\xb5" + bytes(100)
    with fabric() as rig:
        assert exchange(rig, [plain, tagged, service]) == [plain, tagged, service]
        assert rig.engines.reports()[0].delivered_bytes == sum(map(len, (plain, tagged, service)))


@pytest.mark.live
def test_jumbo_frames_pass_whole() -> None:
    frames = [ETHERNET + b"\x88\xb5" + os.urandom(size) for size in (8986, 100, 5000, 1500)]
    with fabric() as rig:
        set_link(rig, mtu=9000)
        assert exchange(rig, frames) == frames


@pytest.mark.live
def test_frames_for_an_interface_that_is_down_are_counted_as_such() -> None:
    with fabric() as rig:
        set_link(rig, up=False)
        assert rig.probe(20, interval_s=0.001) == []
        report = rig.engines.reports()[0]
        assert (report.offered_packets, report.down_drops, report.outside_drops) == (20, 20, 0)
        assert (report.delivered_packets, report.delivered_bytes) == (0, 0)
        set_link(rig, up=True)
        assert len(rig.probe(20, interval_s=0.001)) == 20


@pytest.mark.live
def test_lag_and_backlogged_rate_are_reported() -> None:
    with fabric(LinkSpec(20, "5ms", queue=2000)) as rig:
        seen = rig.probe(500, interval_s=0, size=1500)
        report = rig.engines.reports()[0]
        assert len(seen) == 500
        assert report.lag is not None
        assert report.lag.total == 500
        assert 0 <= report.lag.p50 <= report.lag.p99 <= report.lag.maximum
        # the first never waits, and if this process is slow to send, a few others do not
        assert 400 * 1500 <= report.backlogged_bytes <= 499 * 1500
        assert report.backlogged_bps == pytest.approx(20e6, rel=0.05)
        assert report.rate_ratio == pytest.approx(1, rel=0.05)


@pytest.mark.live
def test_what_the_model_lost_can_be_asked_for() -> None:
    with fabric(LinkSpec(loss=20, seed=5)) as rig:
        got = {sighting.number + 1 for sighting in rig.probe(500, interval_s=0.0002)}
        lost, lost_back = worker(rig).losses(rig.wire)
        assert lost == sorted(set(range(1, 501)) - got)
        assert lost_back == []


@pytest.mark.live
def test_a_replay_changes_the_link_at_its_moments_however_late_its_thread_is() -> None:
    with fabric(LinkSpec(loss=0)) as rig:
        assert rig.wire is not None
        told: list[tuple[int, float]] = []

        def late(fields: Any) -> None:
            time.sleep(0.3)
            told.append((fields[0]["loss"], time.monotonic()))
            rig.update(rig.wire.specs[0].replace(**fields[0]))

        changes = [(0.2, ({"loss": 100}, {})), (0.8, ({"loss": 0}, {}))]
        player = rig.engines.replay(rig.wire, changes, late)
        seen = [s.sent for s in rig.probe(1300, interval_s=0.001)]
        player.stop()
        assert [loss for loss, _when in told] == [100, 0]
        assert player.epoch is not None
        begin, end = player.epoch + 0.2, player.epoch + 0.8
        assert [sent for sent in seen if sent < begin]
        # one may have been stamped before the end and sent after it
        assert len([sent for sent in seen if begin < sent < end]) <= 1
        assert [sent for sent in seen if end < sent < told[1][1]]


@pytest.mark.live
def test_a_replay_that_is_stopped_revokes_what_it_announced() -> None:
    with fabric(LinkSpec(loss=0)) as rig:
        assert rig.wire is not None
        changes = [(0.0, ({"delay": "2ms"}, {})), (60.0, ({"loss": 100}, {}))]
        worker(rig)._ask("schedule", name=rig.wire.name, at=0, fields=[{"loss": 100}, {}])
        player = rig.engines.replay(rig.wire, changes, lambda fields: None)
        player.stop()
        assert len(rig.probe(20, interval_s=0.001)) == 20
        with pytest.raises(KernelError, match="jitter"):
            worker(rig)._ask("schedule", name=rig.wire.name, at=0, fields=[{"jitter": 9}, {}])
        assert len(rig.probe(20, interval_s=0.001)) == 20


@pytest.mark.live
def test_a_dead_worker_is_noticed() -> None:
    rig = fabric()
    rig.engines.check()
    os.kill(worker(rig).pid, signal.SIGKILL)
    with pytest.raises(EngineError, match=r"worker died \(exit status -9\)"):
        rig.engines.reports()
    with pytest.raises(EngineError, match="worker died"):
        rig.engines.check()
    with pytest.raises(EngineError, match="worker died"):
        rig.close()


@pytest.mark.live
def test_the_worker_ends_with_the_process_that_started_it() -> None:
    rig = fabric()
    pid = worker(rig).pid
    rig.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    rig.close()  # once more does no harm


@pytest.mark.live
def test_what_the_kernel_refuses_leaves_the_worker_alive() -> None:
    with fabric() as rig:
        wire = rig.wire
        assert wire is not None
        with pytest.raises(KernelError, match="fabric attach other"):
            worker(rig)._ask(
                "attach", name="other", ports=[77, 78], directions=["", ""], specs=[], seeds=[]
            )
        assert len(rig.probe(5, interval_s=0.001)) == 5


@pytest.mark.live
def test_offloads_are_off_where_asked() -> None:
    with Rig() as rig:
        assert offloads.states(rig.a, "a") == dict.fromkeys(offloads.NAMES, False)
        with pytest.raises(KernelError, match="of interface nosuch: No such device"):
            offloads.disable(rig.a, "nosuch")


@pytest.mark.live
def test_calibration_finds_the_link_it_was_given() -> None:
    specs = [LinkSpec(20, "5ms", loss=2), LinkSpec(20, "5ms", loss=2)]
    (row,) = calibrate("fabric", specs, seconds=0.5)
    assert row.engine == "fabric"
    assert row.rate_error == pytest.approx(0, abs=0.05)
    assert row.loss_fits
    assert 0 <= row.delay_error_p50_s < 0.005
    assert row.as_dict()["delay"] == "5ms"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_an_ordinary_user_has_the_fabric_too() -> None:
    script = (
        "from testbed.sandbox import call\n"
        "from testbed.links import Engines, LinkSpec\n"
        "from testbed.links.rig import Rig\n"
        "def body():\n"
        "    spec = LinkSpec(10, '5ms')\n"
        "    with Rig(Engines(prefer='fabric'), (spec, spec)) as rig:\n"
        "        return len(rig.probe(50, interval_s=0.001))\n"
        "print(call(body))\n"
    )

    def run(python: str, code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-c", code],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(Path(testbed.__file__).parent.parent)},
            capture_output=True,
            text=True,
        )

    why = "no Python"
    for python in (sys.executable, "/usr/bin/python3"):  # the room needs the standard library only
        try:
            probe = run(python, "from testbed.sandbox import call; call(int)")
        except OSError as error:
            why = str(error)
            continue
        if probe.returncode == 0:
            break
        why = probe.stderr.strip().splitlines()[-1]
    else:
        pytest.skip(f"other users may not run Python in a sandbox here: {why}")
    done = run(python, script)
    assert done.stdout.strip() == "50", done.stderr


def test_the_layout_of_the_ring_is_the_kernels() -> None:
    header = struct.pack("=IIIHHIIHH4x", 1, 2, 3, 4, 5, 6, 7, 8, 9) + struct.pack("=HHi", 17, 0, 42)
    assert packet_ring._unpack(header, 0) == (1, 2, 3, 4, 6, 7, 42)
    assert packet_ring._vlan(header, packet_ring._VLAN_AT) == (8, 9)
