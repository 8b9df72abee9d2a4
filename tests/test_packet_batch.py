"""Many frames by one system call, and what the kernel refuses of them."""

from __future__ import annotations

import errno
import time

import pytest

from testbed.kernel.packet_batch import CAPACITY, FrameBatch
from testbed.kernel.packet_ring import PacketRing
from testbed.links.rig import Rig

pytestmark = pytest.mark.live

ETHERNET = b"\x02\0\0\0\0\x0b\x02\0\0\0\0\x0a\x88\xb5"
A, B, NOWHERE = 10, 11, 99


def received(ring: PacketRing, count: int) -> list[bytes]:
    frames: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(frames) < count and time.monotonic() < deadline:
        frames += [data for _arrival, data in ring.read(CAPACITY).get(B, [])]
    return frames


def test_frames_go_out_in_order_and_refusals_are_named() -> None:
    frames = [ETHERNET + bytes([number]) * 100 for number in range(CAPACITY)]
    with Rig() as rig:
        with rig.a:
            batch = FrameBatch()
        with rig.b:
            ring = PacketRing(slots=512)
        a, nowhere = batch.address(A), batch.address(NOWHERE)
        assert batch.send([(a, frames)]) == []
        assert received(ring, CAPACITY) == frames
        runs = [(nowhere, frames[:1]), (a, frames[:3]), (nowhere, frames[:2]), (a, frames[3:5])]
        assert batch.send(runs) == [(n, errno.ENXIO) for n in (0, 4, 5)]
        assert received(ring, 5) == frames[:5]
        assert batch.send([]) == []
        ring.close()
        batch.close()
