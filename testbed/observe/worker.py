"""The sampler's process: `python -m testbed.observe.worker FD`, FD being one end of a pipe.

    in      {"places": [...], "interval_s": ...}, then "stop" (or the end of the pipe)
    out     ("ready",), ("rows", rows, events) a few times a second, ("done", facts)

It is a process of its own so that it neither waits for the trial's interpreter nor makes that
wait.  Instants are multiples of the interval from its start.  One that comes late by more than
half an interval is counted as late; one that has passed before the sample before it was done is
counted as missed, and not made up for.
"""

from __future__ import annotations

import gc
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from testbed.observe.place import Place
from testbed.observe.sampler import Sampler

SEND_S = 0.25


class Schedule:
    """The instants at which to sample, and how well they were kept."""

    def __init__(self, start: float, interval_s: float) -> None:
        self._interval_s = interval_s
        self.due = start
        self.samples = self.late = self.missed = 0

    def begins(self, now: float) -> None:
        """A sample begins now."""
        self.samples += 1
        self.late += now - self.due > self._interval_s / 2

    def ended(self, now: float) -> None:
        """It is done: the next instant is the first that has not passed."""
        self.due += self._interval_s
        passed = int((now - self.due) // self._interval_s) + 1
        if passed > 0:
            self.missed += passed
            self.due += passed * self._interval_s


def run(pipe: Connection) -> None:
    """Sample until told to stop, or until nobody is there any more to be told."""
    task = pipe.recv()
    sampler = Sampler([Place(**each) for each in task["places"]])
    gc.freeze()
    gc.disable()  # rows hold no cycles, and a collection would be a late sample
    began, began_cpu = time.monotonic(), time.thread_time()
    schedule = Schedule(began, task["interval_s"])
    _sample(sampler, schedule)
    pipe.send(("ready",))
    sent = began
    while not _told(pipe, schedule.due - time.monotonic()):
        _sample(sampler, schedule)
        if time.monotonic() - sent >= SEND_S:
            sent = _send(pipe, sampler)
    sampler.sample()
    facts = sampler.end()
    _send(pipe, sampler)
    facts |= {
        "seconds": time.monotonic() - began,
        "cpu_s": time.thread_time() - began_cpu,
        "samples": schedule.samples,
        "late": schedule.late,
        "missed": schedule.missed,
    }
    pipe.send(("done", facts))


def _sample(sampler: Sampler, schedule: Schedule) -> None:
    schedule.begins(time.monotonic())
    sampler.sample()
    schedule.ended(time.monotonic())


def _send(pipe: Connection, sampler: Sampler) -> float:
    pipe.send(("rows", sampler.rows, sampler.events))
    sampler.rows.clear()
    sampler.events.clear()
    return time.monotonic()


def _told(pipe: Connection, wait_s: float) -> bool:
    """Wait for the next instant; True when there is none because it is over."""
    if not pipe.poll(max(0.0, wait_s)):
        return False
    message: Any = None
    try:
        message = pipe.recv()
    except EOFError:
        sys.exit(0)  # the trial is gone, and nobody wants to know any more
    return bool(message == "stop")


if __name__ == "__main__":
    run(Connection(int(sys.argv[1])))
