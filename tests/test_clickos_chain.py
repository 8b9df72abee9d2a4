"""Variant chain: its claims and figures from made-up records, and one short trial."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from clickos_records import Records, Row, results_of, run_trial

from testbed.report.figures import draw
from testbed.verdict import FAILS, HOLDS
from usecases.clickos_migration.chain import boxes
from usecases.clickos_migration.chain_report import CLAIMS, FIGURES
from usecases.clickos_migration.paths import DIRECT, OTHER

LENGTHS = range(1, 6)
SAMPLES = [
    (tenth / 10, f"chain.{path}", "throughput", 4e6) for tenth in range(90)
    for path in (DIRECT, OTHER)
]  # fmt: skip


def trial(**changes: float) -> list[Row]:
    """What a trial records in which everything is as claimed, but for `changes` (SOURCE__METRIC).

    In their names underscores stand for dots.
    """
    rows: dict[tuple[str, str], float] = {("", "connections"): 2.0, ("", "survivors"): 2.0}
    for length in LENGTHS:
        rows[str(length), "rtt"] = 0.05
        for name in ("up1", "down2"):
            source = f"{length}.{name}"
            rows |= {(source, "goodput"): 4e6, (source, "delivered"): 1e6}
            if length > 1:
                rows |= {(source, "gap"): 0.05, (source, "added_gap"): 0.03}
        if length > 1:
            rows |= {(str(length), "wanted"): 2.0, (str(length), "redirected"): 2.0}
        for box in boxes(5):
            rows[f"{length}.{box}", "seen"] = 2.1e6 if box in boxes(length) else 100.0
    for name, value in changes.items():
        source, _, metric = name.removeprefix("at_").partition("__")
        assert (source.replace("_", "."), metric) in rows
        rows[source.replace("_", "."), metric] = value
    return [(source, metric, value) for (source, metric), value in rows.items()]


def verdicts(rows: Iterable[Row]) -> dict[str, str]:
    results = Records("chain", [rows])
    return {claim.id.removeprefix("chain-"): claim.judge(results).outcome for claim in CLAIMS}


def test_all_claims_hold_where_everything_is_as_claimed() -> None:
    assert set(verdicts(trial()).values()) == {HOLDS}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"at_4__redirected": 1.0}, "survive"),
        ({"at___survivors": 1.0}, "survive"),
        ({"at_3_m3__seen": 1e6}, "seen"),
        ({"at_3_m4__seen": 1e6}, "seen"),
        ({"at_5_up1__goodput": 1e6}, "goodput"),
        (
            {f"at_{n}_{name}__added_gap": 0.2 for n in (2, 3, 4) for name in ("up1", "down2")},
            "gap",
        ),
    ],
)
def test_a_claim_fails_where_the_records_speak_against_it(
    change: dict[str, float], broken: str
) -> None:
    judged = verdicts(trial(**change))
    assert [name for name, outcome in judged.items() if outcome == FAILS] == [broken]


def test_every_figure_is_drawn() -> None:
    results = Records("chain", [trial(), trial()], samples=SAMPLES)
    assert all(draw(figure, results).png for figure in FIGURES)


@pytest.mark.live
def test_live_connections_go_through_one_more_box_at_a_time(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "chain.longest": 3, "chain.hold": 1.6, "chain.rate": 2, "paths.rtt": 10, "paths.queue": 50
    }  # fmt: skip
    values = run_trial(tmp_path, "chain", changes)
    assert values["survivors", ""] == values["connections", ""] == 2
    for length in ("2", "3"):
        assert values["redirected", length] == values["wanted", length] == 2
    judged = {claim.id: claim for claim in CLAIMS}["chain-seen"]
    assert judged.judge(results_of("chain", values)).outcome == HOLDS
