"""The fabric's process: receive frames, pass them through pipes, send each when it is due.

`python -m testbed.links.fabric.worker FD`, started inside the engine's namespace; FD is its end
of the control socket, and end of file there ends it, so it cannot outlive the network.

The loop sleeps until a frame is due or one arrives.  Where every pipe delays by at least a
moment, arrivals need not wake it while something is in flight: it looks at the ring often
enough that nothing can have become due, and arrival times are the kernel's.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import resource
import select
import signal
import socket
import sys
import time
from heapq import heappop, heappush
from math import inf
from pathlib import Path
from typing import Any

from testbed.errors import ParameterError
from testbed.kernel import packet_batch
from testbed.kernel.packet_batch import FrameBatch
from testbed.kernel.packet_ring import PacketRing
from testbed.links import counters
from testbed.links.fabric.lane import Lane
from testbed.links.fabric.pipe import Departure
from testbed.links.fabric.protocol import Channel, Message
from testbed.links.histogram import Histogram
from testbed.links.spec import LinkSpec

_BATCH = 128  # frames received between two looks at what is due
_CONTROL_EVERY_S = 0.005
_SHORTEST_SLEEP_S, _LONGER_BY_S, _SHORTEST_UNDER_LOAD_S = 50e-6, 4e-6, 250e-6
_LONGEST_NAP_S, _SHORTEST_NAP_S = 0.005, 0.0002
_PR_SET_TIMERSLACK = 29


class Worker:
    """Lanes, the ring that feeds them, and the control socket."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._ring = PacketRing()
        self._lanes: dict[int, Lane] = {}  # by the port their frames come from
        self._wires: dict[str, tuple[Lane, Lane]] = {}
        self._before: dict[int, counters.Counters] = {}
        self._agenda: list[tuple[float, int, Lane]] = []
        self._batch = FrameBatch()
        self._latency = inf
        self._nap = 0.0
        self._late = Histogram()
        self._busy = 0  # frames received since the last sleep
        self.realtime = _be_punctual()

    # -- the hot loop ----------------------------------------------------------------------------

    def run(self) -> None:
        """Carry frames until the control socket ends."""
        clock, agenda = time.monotonic, self._agenda
        control_at = clock() + _CONTROL_EVERY_S
        while True:
            self._receive(_BATCH)
            now = clock()
            while agenda and agenda[0][0] <= now:
                self._deliver(now)
            now = clock()
            wait = agenda[0][0] - now if agenda else inf
            if wait > 0 or now >= control_at:
                if not self._sleep(now, wait):
                    return
                control_at = clock() + _CONTROL_EVERY_S

    def _sleep(self, now: float, wait: float) -> bool:
        """Until a frame is due, one arrives or a request does; False when the other side is gone.

        A sleep costs some 25 microseconds of processor time in a virtual machine, so short ones
        are made longer, the more so the more frames went through since the last, and frames that
        leave within that time leave together.
        """
        shortest = min(_SHORTEST_SLEEP_S + self._busy * _LONGER_BY_S, _SHORTEST_UNDER_LOAD_S)
        self._busy = 0
        watched: list[PacketRing | Channel] = [self._channel]
        if self._nap and wait < inf:
            wait = min(wait, self._nap)
        else:
            watched.append(self._ring)
        timeout = None if wait == inf else max(wait, shortest) if wait > 0 else 0
        readable, _w, _x = select.select(watched, [], [], timeout)
        if not readable and timeout:
            self._late.add(time.monotonic() - now - timeout)
        return self._channel not in readable or self._answer()

    def _receive(self, limit: int) -> int:
        """Offer up to `limit` frames to their pipes."""
        lanes = self._lanes
        count = 0
        for port, arrivals in self._ring.read(limit).items():
            count += len(arrivals)
            lane = lanes.get(port)
            if lane is not None:
                lane.pipe.offer_all(arrivals)
                if lane.scheduled_at == inf or lane.pipe.reorders:
                    self._schedule(lane)
        self._busy += count
        return count

    def _schedule(self, lane: Lane) -> None:
        at = lane.pipe.next_event()
        if at < lane.scheduled_at:
            lane.scheduled_at = at
            heappush(self._agenda, (at, lane.source, lane))

    def _deliver(self, now: float) -> None:
        """Send what the first lanes on the agenda have due, together as far as a batch goes."""
        agenda, room = self._agenda, packet_batch.CAPACITY
        served: list[tuple[Lane, list[Departure]]] = []
        while room and agenda and agenda[0][0] <= now:
            at, _port, lane = heappop(agenda)
            if at != lane.scheduled_at:  # the entry is out of date
                continue
            departures = lane.pipe.due(now, room)
            lane.scheduled_at = inf
            self._schedule(lane)
            if departures:
                served.append((lane, departures))
                room -= len(departures)
        if served:
            self._send(served)

    def _send(self, served: list[tuple[Lane, list[Departure]]]) -> None:
        runs = [(lane.address, [frame for _d, _s, frame in out]) for lane, out in served]
        refused = self._batch.send(runs)
        sent = time.monotonic()
        for lane, departures in served:
            lane.left(departures, sent)
        if refused:
            frames = [(lane, frame) for lane, out in served for _d, _s, frame in out]
            for position, number in refused:
                lane, frame = frames[position]
                lane.refused(number, len(frame))

    # -- requests --------------------------------------------------------------------------------

    def _answer(self) -> bool:
        request = self._channel.receive()
        if request is None:
            return False
        while self._receive(_BATCH):  # what arrived before a request meets the state before it
            pass
        try:
            answer: Message = {"ok": getattr(self, "do_" + request.pop("op"))(**request)}
        except OSError as error:
            answer = {"error": error.strerror or str(error), "errno": error.errno or 0}
        except ParameterError as error:
            answer = {"error": str(error), "errno": errno.EINVAL}
        self._channel.send(answer)
        return True

    def do_status(self) -> dict[str, Any]:
        """What `WorkerStatus` says."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "realtime": self.realtime,
            "cpu_s": used.ru_utime + used.ru_stime,
            "waited_s": _waited_s(),
            "late": self._late.counts,
            "ring_drops": self._ring.dropped,
        }

    def do_attach(
        self,
        name: str,
        ports: list[int],
        directions: list[str],
        specs: list[dict[str, Any]],
        seeds: list[str],
    ) -> None:
        """Carry a wire."""
        port_names = [socket.if_indextoname(port) for port in ports]
        (spec_ab, spec_ba), (seed_ab, seed_ba) = (LinkSpec(**spec) for spec in specs), seeds
        back_address, there_address = (self._batch.address(port) for port in ports)
        there = Lane(
            directions[0], ports[0], port_names[1], spec_ab, seed=seed_ab, address=there_address
        )
        back = Lane(
            directions[1], ports[1], port_names[0], spec_ba, seed=seed_ba, address=back_address
        )
        for lane in (there, back):
            self._before[lane.source] = counters.interface(lane.source)
            self._lanes[lane.source] = lane
        self._wires[name] = there, back
        self._expect(min(self._latency, there.pipe.least_latency_s, back.pipe.least_latency_s))

    def do_update(self, name: str, specs: list[dict[str, Any]]) -> None:
        """Change a live wire."""
        now = time.monotonic()
        for lane, spec in zip(self._wires[name], specs, strict=True):
            lane.pipe.update(now, LinkSpec(**spec))
            lane.scheduled_at = inf
            self._schedule(lane)
        self._expect(min(lane.pipe.least_latency_s for lane in self._lanes.values()))

    def do_schedule(self, name: str, at: float, fields: list[dict[str, Any]]) -> None:
        """Change a live wire at a moment to come, exactly then whenever this process wakes."""
        at = max(at, time.monotonic())
        for lane, changed in zip(self._wires.get(name, ()), fields, strict=False):
            if changed:
                spec = lane.pipe.schedule(at, changed)
                self._schedule(lane)
                least = 0.0 if spec.reorder_ratio else spec.delay_s - spec.jitter_s
                self._expect(min(self._latency, least))

    def do_unschedule(self, name: str) -> None:
        """Forget what is scheduled for a wire."""
        for lane in self._wires.get(name, ()):
            lane.pipe.unschedule()

    def do_flush(self, name: str) -> None:
        """A wire has gone down: drop what is inside."""
        for lane in self._wires[name]:
            lane.pipe.flush()
            lane.scheduled_at = inf

    def do_detach(self, name: str) -> None:
        """Stop carrying a wire."""
        for lane in self._wires.pop(name):
            del self._lanes[lane.source], self._before[lane.source]
            lane.scheduled_at = inf

    def do_report(self) -> dict[str, list[dict[str, Any]]]:
        """Counters of each wire's two directions."""
        kernel = counters.interfaces()
        while self._receive(_BATCH):
            pass
        return {
            name: [self._facts(lane, kernel) for lane in lanes]
            for name, lanes in self._wires.items()
        }

    def _facts(self, lane: Lane, kernel: dict[int, counters.Counters]) -> dict[str, Any]:
        """A lane's counters, with the frames that the kernel had and the ring never showed."""
        facts = lane.facts()
        now, before = kernel.get(lane.source), self._before[lane.source]
        if now is not None:
            came = now.rx_packets - before.rx_packets + now.rx_dropped - before.rx_dropped
            missed = max(0, came - lane.pipe.offered_packets)
            facts["offered_packets"] += missed
            facts["outside_drops"] += missed
        return facts

    def do_queues(self) -> list[tuple[Any, ...]]:
        """Wire, direction, what waits in packets and bytes, and drops, of every queue."""
        return [
            (name, side, *lane.pipe.queue)
            for name, lanes in self._wires.items()
            for side, lane in enumerate(lanes)
        ]

    def do_losses(self, name: str) -> list[list[int]]:
        """The numbers of the first packets that each direction's loss model took."""
        return [lane.pipe.loss.log for lane in self._wires[name]]

    def _expect(self, latency: float) -> None:
        """No pipe is quicker than this: the ring may go unread for half of it, within reason."""
        self._latency = latency
        nap = min(latency / 2, _LONGEST_NAP_S)
        self._nap = nap if nap >= _SHORTEST_NAP_S else 0.0

    def close(self) -> None:
        """Close every descriptor."""
        for name in list(self._wires):
            self.do_detach(name)
        self._batch.close()
        self._ring.close()
        self._channel.close()


def _waited_s() -> float:
    """How long this process was ready to run and did not (proc(5): schedstat); 0 if not counted."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except FileNotFoundError:  # a kernel without CONFIG_SCHED_INFO
        return 0.0


def _be_punctual() -> bool:
    """Fine timers, no collector pauses, and real-time priority where allowed; was it allowed?"""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    gc.disable()  # the loop makes no cycles
    gc.freeze()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:  # an ordinary user; the certificate's lag says what that costs
        return False
    return True


def main(argv: list[str]) -> None:
    """Serve the control socket whose descriptor is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the network, which ends us
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    worker = Worker(Channel(socket.socket(fileno=int(argv[0]))))
    worker.run()
    worker.close()


if __name__ == "__main__":
    main(sys.argv[1:])
