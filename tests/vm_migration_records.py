"""Records of trials that were never run: a player and a network, made up second by second."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_lab import Answer, done, told

from testbed.report.results import Results
from testbed.run import Recorder, Trial
from usecases.vm_migration import VmMigration, account
from usecases.vm_migration.account import Moved, Watched
from usecases.vm_migration.journey import (
    BACK,
    COLD,
    LOAD,
    MIGRATE_MPTCP,
    MIGRATE_TCP,
    PHONE,
    RESTART,
    TABLET,
    Leg,
    journey,
)
from usecases.vm_migration.viewing import Report, Viewing

STEP_S = 0.1
LEAD_S, TAIL_S = 4.0, 8.0
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8ff"
    "ff3f0005fe02fea735810a0000000049454e44ae426082"
)


@dataclass(frozen=True)
class Course:
    """How a variant's move goes: seconds of each phase, and what becomes of the viewer."""

    phases: tuple[tuple[str, float], ...]
    freeze_s: float
    anew: bool = False  # is there another player afterwards?
    reconnects: bool = False

    @property
    def takes_s(self) -> float:
        return sum(seconds for _name, seconds in self.phases)


COURSES = {
    MIGRATE_MPTCP: Course((("copy", 5.0), ("down", 0.2), ("network", 0.2)), 0.2),
    MIGRATE_TCP: Course((("copy", 5.0), ("down", 0.2), ("network", 0.2)), 4.0, reconnects=True),
    COLD: Course((("down", 1.0), ("carry", 7.0), ("network", 0.2)), 8.2),
    RESTART: Course((("boot", 4.0), ("player", 2.0)), 6.0, anew=True),
}


class Film:
    """A player that is watched; `reports` is all it told."""

    def __init__(self) -> None:
        self.now = self.clock = self.position = 0.0
        self.frames, self.bytes = 0.0, 0
        self.opened, self.session = 1, 0
        self.reports: list[Report] = []

    def play(self, seconds: float, *, bitrate: float = 4e5, pictures: float = 15.0) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.now += STEP_S
            self.clock += STEP_S
            self.position += STEP_S
            self.frames = self.frames + pictures * STEP_S
            self.bytes += round(bitrate * STEP_S / 8)
            self._tell("playing", bitrate)

    def stand_still(self, seconds: float, *, told: bool = False) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.now += STEP_S
            if told:  # else the machine stands still too, and its clock
                self.clock += STEP_S
                self._tell("stalled", 4e5)

    def begin_anew(self, skipped_s: float) -> None:
        self.session += 1
        self.frames, self.bytes = 0.0, 0
        self.position += skipped_s

    def _tell(self, state: str, bitrate: float) -> None:
        self.reports.append(
            Report(
                time_s=self.now, clock_s=self.clock, state=state, position_s=self.position,
                buffer_s=3.0, latency_s=4.0, bitrate_bps=bitrate, frames=round(self.frames),
                bytes=self.bytes, opened=self.opened, session=self.session,
            )
        )  # fmt: skip


def trial(spec: Trial, folder: Path, *, spoilt: bool = False) -> Answer:
    """What a trial leaves; `spoilt`: one in which nothing goes as it should."""
    record = Recorder(folder, spec)
    film, legs = Film(), journey(spec.variant, scenario="both", once=True)
    _tell_setting(record)
    for leg in legs:
        _travel(record, film, leg, COURSES[spec.variant], spec.variant, folder, spoilt)
    for report in film.reports:
        for metric, value, unit in (
            ("position", report.position_s, "s"), ("buffer", report.buffer_s, "s"),
            ("frames", report.frames, ""), ("bitrate", report.bitrate_bps, "bit/s"),
        ):  # fmt: skip
            record.sample("viewer", metric, value, unit, report.time_s)
        for link in ("wifi", "lte", "peer"):
            record.sample(link, "throughput", 4e5, "bit/s", report.time_s)
    record.close()
    return done()


def _travel(
    record: Recorder, film: Film, leg: Leg, course: Course, variant: str, folder: Path, spoilt: bool
) -> None:
    start = film.now
    loaded, slow = leg is LOAD, spoilt and variant == MIGRATE_MPTCP
    film.play(LEAD_S, bitrate=4e5 if leg.source == PHONE else 1.6e6, pictures=4 if loaded else 15)
    began, still = film.now, course.freeze_s * (50 if slow else 1)
    if course.anew:
        film.stand_still(still)
        film.begin_anew(still)
    else:
        film.play(course.takes_s - min(course.takes_s, course.freeze_s))
        film.stand_still(0.2)
        film.stand_still(max(0.0, still - 0.2), told=course.reconnects or slow)
        film.opened += course.reconnects or spoilt
        film.position += 3.0 if spoilt else 0.0
    film.play(TAIL_S, bitrate=4e5 if spoilt else 1.6e6, pictures=4 if spoilt else 15)
    at, phases = began, []
    for name, seconds in course.phases:
        phases.append((name, at, at + seconds))
        at += seconds
    moved = Moved(
        stopped_s=began + course.takes_s - course.freeze_s,
        downtime_s=dict(course.phases).get("down", course.takes_s) * (100 if slow else 1),
        payload=60_000_000,
        phases=tuple(phases),
    )
    watched = Watched(start_s=start, settled_s=film.now - 3, end_s=film.now)
    gap_s = course.freeze_s * (50 if slow else 1)
    account.tell(record, leg, moved, watched, Viewing(film.reports), gap_s)
    for device in (PHONE, TABLET):
        source = f"{leg.name}.{device}"
        record.result("cpu", 5.0, "s", source)
        record.result("cpu_before", 0.8 if device == leg.source else 0.0, "", source)
        record.result("cpu_after", 0.3 if device == leg.target else 0.0, "", source)
        record.result("subflow", 1e6, "B", source)
    for link in ("wifi", "lte", "peer"):
        record.result("carried", 2e6, "B", f"{leg.name}.{link}")
    _tell_displays(record, leg, variant, folder, spoilt)


def _tell_displays(record: Recorder, leg: Leg, variant: str, folder: Path, spoilt: bool) -> None:
    modes = {PHONE: "480x270", TABLET: "480x270" if spoilt else "640x400"}
    for when, device in (("before", leg.source), ("after", leg.target)):
        picture = f"pictures/{variant}-{leg.name}-{when}.png"
        (folder / "pictures").mkdir(exist_ok=True)
        (folder / picture).write_bytes(PNG)
        record.event("display", leg=leg.name, when=when, mode=modes[device], picture=picture,
                     offered="640x400" if device == TABLET else "480x270")  # fmt: skip


def _tell_setting(record: Recorder) -> None:
    wires = (
        ("phone", "ap", "wifi", "1.2 Mb/s, 20 ms"), ("tablet", "enodeb", "lte", "8 Mb/s, 25 ms"),
        ("ap", "isp1", "", ""), ("enodeb", "isp2", "", ""), ("isp1", "core", "", ""),
        ("isp2", "core", "", ""), ("core", "server", "", ""),
        ("phone", "tablet", "peer", "100 Mb/s"),
    )  # fmt: skip
    links = [{"ends": [one, other], "name": n, "spec": s} for one, other, n, s in wires]
    addresses = {PHONE: "10.250.1.2", TABLET: "10.250.2.2"}
    record.event("setting", links=links, addresses=addresses)


def results(folder: Path, *, spoilt: bool = False, **options: Any) -> Results:
    """Results of a run of all variants whose trials are made up."""
    case = VmMigration()
    bundle = told(
        folder, lambda spec, place: trial(spec, place, spoilt=spoilt), case=case, **options
    )
    return Results(case, [bundle])


__all__ = ["BACK", "COURSES", "Film", "results", "trial"]
