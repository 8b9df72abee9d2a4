"""Variant redirect: its claims and figures from made-up records, and a short trial."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from clickos_records import Records, Row, results_of, run_trial

from testbed.errors import NodeProcessError
from testbed.mptcp.counters import Address
from testbed.mptcp.redirection.watcher import Flow
from testbed.report.figures import draw
from testbed.run import Recorder, Trial
from testbed.verdict import FAILS, HOLDS
from usecases.clickos_migration.contenders import CONTENDERS, NOTHING, REDIRECT, REROUTE
from usecases.clickos_migration.parameters import Redirect
from usecases.clickos_migration.paths import DIRECT, LINKS, OTHER
from usecases.clickos_migration.redirect import connections
from usecases.clickos_migration.redirect_claims import CLAIMS
from usecases.clickos_migration.redirect_figures import FIGURES
from usecases.clickos_migration.transfers import UP, Transfer

MOVED = ("up1", "down1")
SAMPLES = [
    (second / 10 + 3 * place, f"{contender}.{path}", "throughput", 8e6)
    for place, contender in enumerate(CONTENDERS)
    for second in range(30)
    for path in (DIRECT, OTHER)
]


def trial(**changes: float) -> Iterable[Row]:
    """What a trial records in which everything is as claimed, but for `changes`.

    A change's name is SOURCE__METRIC with underscores for dots and dashes.
    """
    rows: list[Row] = []
    for contender in CONTENDERS:
        gained = 1.8 if contender == REDIRECT else 1.0
        rows += [(contender, f"goodput_{when}", 14e6) for when in ("before", "during")]
        rows.append((contender, "goodput_after", 14e6 * gained))
        rows += [(contender, metric, 4.0) for metric in ("connections", "survivors")]
        for link in LINKS:
            rows.append((f"{contender}.{link}", "carried_before", 5e6 if link == DIRECT else 0.0))
            used = link == DIRECT or (contender == REDIRECT and link in (OTHER, "peering"))
            rerouted = contender == REROUTE and link == "m1-a2"
            rows.append((f"{contender}.{link}", "carried_after", 8e6 if used or rerouted else 0.0))
        for name in MOVED:
            source = f"{contender}.{name}"
            gap = 0.13 if contender == REDIRECT else 0.08
            rows += [(source, "gap_before", 0.07), (source, "gap_after", gap)]
    rows += [(REDIRECT, "wanted", 2.0), (REDIRECT, "redirected", 2.0), (REDIRECT, "rtt", 0.05)]
    rows += [(f"{REDIRECT}.{name}", "join", 0.12) for name in MOVED]
    keys = {_key(source, metric): place for place, (source, metric, _value) in enumerate(rows)}
    for key, value in changes.items():
        source, metric, _value = rows[keys[key]]
        rows[keys[key]] = (source, metric, value)
    return rows


def _key(source: str, metric: str) -> str:
    return f"{source}__{metric}".replace(".", "_").replace("-", "_")


def verdicts(*trials: Iterable[Row]) -> dict[str, str]:
    results = Records("redirect", trials)
    return {claim.id: claim.judge(results).outcome for claim in CLAIMS}


def test_all_claims_hold_where_everything_is_as_claimed() -> None:
    assert set(verdicts(trial(), trial()).values()) == {HOLDS}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"redirect__survivors": 3.0}, {"survive", "intact"}),
        ({"nothing__survivors": 3.0}, {"intact"}),
        ({"redirect__redirected": 1.0}, {"survive"}),
        ({"redirect__goodput_after": 15e6}, {"goodput"}),
        ({"reroute__goodput_after": 24e6}, {"goodput"}),
        ({"reroute_m1_a2__carried_after": 0.0}, {"border"}),
        ({"reroute_other__carried_after": 4e6}, {"border"}),
        ({"redirect_other__carried_after": 1e6}, {"moved"}),
        (
            {"redirect_up1__gap_after": 0.5, "redirect_down1__gap_after": 0.3},
            {"gap"},
        ),
    ],
)
def test_a_claim_fails_where_the_records_speak_against_it(
    change: dict[str, float], broken: set[str]
) -> None:
    judged = verdicts(trial(**change))
    assert {name for name, outcome in judged.items() if outcome == FAILS} == broken


def test_the_bound_of_gaps_is_that_of_the_measured_round_trip() -> None:
    gaps = {"redirect_up1__gap_after": 0.43, "redirect_down1__gap_after": 0.43}
    assert verdicts(trial(**gaps))["gap"] == FAILS
    assert verdicts(trial(**gaps, redirect__rtt=0.16))["gap"] == HOLDS


@pytest.mark.parametrize("trials", [1, 6])
def test_every_figure_is_drawn(trials: int) -> None:
    rtts: list[Any] = [20.0 * (place % 3) for place in range(trials)]
    swept = {"paths.rtt": rtts} if trials > 1 else {}
    results = Records(
        "redirect", [trial() for _ in range(trials)], samples=SAMPLES, parameters=swept
    )
    for figure in FIGURES:
        drawn = draw(figure, results)
        lacking = trials == 1 and figure.id == "rtt"
        assert ("testbed sweep" in drawn.missing) is lacking
        assert bool(drawn.png) is not lacking


def test_so_many_of_each_kind_are_moved() -> None:
    def moved(**setting: float) -> list[str]:
        return [name for name, _direction, moves in connections(Redirect(**setting)) if moves]  # type: ignore[arg-type]

    assert moved() == ["up1", "down1"]
    assert moved(uploads=3, downloads=1, share=50) == ["up1", "up2", "down1"]
    assert moved(share=100) == ["up1", "up2", "down1", "down2"]
    assert {NOTHING, REROUTE, REDIRECT} == set(CONTENDERS)


class End:
    """An end of a transfer: its results, or what it died of."""

    name = "an end"

    def __init__(self, **results: Any) -> None:
        self._results = results

    async def done(self, _timeout: float) -> dict[str, Any]:
        if not self._results:
            raise NodeProcessError("reset by peer")
        return self._results


@pytest.mark.parametrize(
    ("client", "server", "intact"),
    [
        ({"intact": True, "protocol": "mptcp"}, {"arrivals": [(1.0, 1.0, 7)]}, True),
        ({"intact": True, "protocol": "tcp (mptcp fell back)"}, {"arrivals": []}, False),
        ({"intact": False, "protocol": "mptcp"}, {"arrivals": []}, False),
        ({"intact": True, "protocol": "mptcp"}, {}, False),
        ({}, {"arrivals": []}, False),
    ],
)
def test_a_connection_that_breaks_is_a_result(
    tmp_path: Path, client: dict[str, Any], server: dict[str, Any], intact: bool
) -> None:
    record = Recorder(tmp_path, Trial(variant="redirect", repeat=0, seed=1))
    flow = Flow(Address("10.0.0.1", 1), Address("10.0.0.2", 2))
    transfer = Transfer(record, "up1", UP, flow, (End(**client), End(**server)))  # type: ignore[arg-type]
    asyncio.run(transfer.finish(0))
    record.close()
    assert (transfer.intact, transfer.arrived.total) == (intact, 7 if intact else 0)
    failed = (tmp_path / "events.jsonl").read_text().count("connection-failed")
    assert failed == (not client) + (not server)


@pytest.mark.live
def test_live_connections_take_the_other_path_and_survive(tmp_path: Path) -> None:
    changes = {
        "redirect.uploads": 1, "redirect.downloads": 1, "redirect.before": 2, "redirect.after": 2,
        "paths.direct_bw": 4, "paths.other_bw": 6, "paths.rtt": 10,
    }  # fmt: skip
    values = run_trial(tmp_path, "redirect", changes)
    for contender in CONTENDERS:
        assert values["survivors", contender] == values["connections", contender] == 2
    assert values["redirected", REDIRECT] == values["wanted", REDIRECT] == 2
    judged = {claim.id: claim for claim in CLAIMS}
    for name in ("survive", "intact", "border"):
        assert judged[name].judge(results_of("redirect", values)).outcome == HOLDS
    assert values["carried_after", f"{REDIRECT}.{OTHER}"] > 100_000
