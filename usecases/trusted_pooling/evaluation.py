"""What one trial showed: captures and notes turned into figures of the trial.

The attacker's capture is that of the access point.  What the phone itself sent out on WiFi is
judged besides: what was lost on the air, and so never reached the access point, would still have
been heard by somebody near the phone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.run import Recorder
from traffic.pattern import marked_bytes
from usecases.trusted_pooling.attacker import Haul, attack
from usecases.trusted_pooling.capture import read
from usecases.trusted_pooling.leaks import Leaks, Note, judge
from usecases.trusted_pooling.plan import HTTP_PORT, LIVE_PORT, PHASES
from usecases.trusted_pooling.streams import Piece, place


@dataclass(frozen=True, kw_only=True)
class Findings:
    """One trial: what leaked to the access point and on the air, and what the attacker made of it.

    `marked` counts, independently of sequence numbers, bytes of the clear connections in the
    capture that carry the mark of personal content (bit 7), repetitions included; `live_marked`
    those of the live connection, whose sensitive bytes carry it without exception.
    """

    leaks: Leaks
    air: Leaks
    haul: Haul
    marked: int
    live_marked: int
    written: int


def evaluate(access_point: Path, phone: Path, notes: Sequence[Note]) -> Findings:
    """Judge the capture at the access point and that of what the phone sent on WiFi."""
    segments = list(read(access_point))
    pieces = place(segments)
    live_marked = _marked(pieces, LIVE_PORT)
    return Findings(
        leaks=judge(pieces, notes),
        air=judge(place(read(phone)), notes),
        haul=attack(segments),
        marked=_marked(pieces, HTTP_PORT) + live_marked,
        live_marked=live_marked,
        written=sum(note.length for note in notes),
    )


def _marked(pieces: Iterable[Piece], port: int) -> int:
    ends = ((piece, piece.flow.source.port, piece.flow.destination.port) for piece in pieces)
    return sum(marked_bytes(piece.payload) for piece, *ports in ends if port in ports)


def report(findings: Findings, record: Recorder) -> None:
    """Write the findings into the trial's records."""
    leaks, haul = findings.leaks, findings.haul
    for phase in PHASES:
        for name, judged in (("leaked", leaks), ("emitted", findings.air)):
            found = judged.phases.get(phase)
            record.result(name, found.leaked if found else 0, "B", phase)
            record.result(f"{name}_crossings", found.crossings if found else 0, "B", phase)
        sent = leaks.phases.get(phase)
        record.result("sensitive_sent", sent.sent if sent else 0, "B", phase)
    unaccounted = leaks.unplaced + leaks.foreign + findings.air.unplaced + findings.air.foreign
    record.result("unaccounted", unaccounted, "B")
    record.result("marked", findings.marked, "B")
    record.result("live_marked", findings.live_marked, "B")
    record.result("written", findings.written, "B")
    record.result("captured", sum(leaks.held.values()), "B")
    record.result("captured_readable", sum(each.readable for each in haul.connections), "B")
    record.result("cookies_stolen", haul.count("cookie"), "1")
    record.result("logins_stolen", haul.count("login"), "1")
    for each in haul.connections:
        record.event(
            "attacker-connection", client=each.client, server=each.server, held=each.held,
            span=each.span, readable=each.readable, requests=each.requests,
            share=round(each.share, 4),
        )  # fmt: skip
    for site, loot in haul.sites.items():
        stolen = [{"kind": each.kind, "name": each.name} for each in loot]
        record.event("attacker-loot", site=site, loot=stolen)
