"""What topologies state of themselves, judged over all trials, as claims among the others."""

from __future__ import annotations

from typing import Any

from testbed.report.results import Results
from testbed.run.usecase import Claim, MissingData
from testbed.verdict import FAILS, HOLDS, Verdict


def claims(results: Results) -> tuple[Claim, ...]:
    """A claim for each expectation that was checked in a complete trial."""
    try:
        events = results.events("expectation")
    except MissingData:
        return ()
    grouped = events.groupby(["statement", "source"], sort=False)
    return tuple(
        Claim(f"expect-{number}", statement, source, _judge(found.to_dict("records")))
        for number, ((statement, source), found) in enumerate(grouped, 1)
    )


def _judge(trials: list[dict[str, Any]]) -> Any:
    """Over the trials it was checked in it holds in all, fails in one, or cannot be told."""
    failed = [each for each in trials if each["outcome"] == FAILS]
    held = [each for each in trials if each["outcome"] == HOLDS]

    def judge(_results: Results) -> Verdict:
        if failed:
            return Verdict.fails(f"{failed[0]['measured']}{_of(failed, trials)}")
        if len(held) < len(trials):
            return Verdict.not_measurable(next(t["why"] for t in trials if t not in held))
        return Verdict.holds(f"{held[0]['measured']}{_of(held, trials)}")

    return judge


def _of(some: list[Any], trials: list[Any]) -> str:
    return f" (in {len(some)} of {len(trials)} trials)" if len(trials) > 1 else ""
