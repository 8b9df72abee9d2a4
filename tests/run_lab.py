"""What the tests of runs and reports share: the tiny use case, and runs whose trials are told.

`told` runs the real runner on trials that are not processes but functions: what a trial leaves
in its bundle and what it answers is then the test's, and a run takes no time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.run import Recorder, Trial, UseCase, provenance, runner
from testbed.run.bundle import Bundle
from testbed.run.discovery import find
from testbed.run.trial_process import Observer

_packages = functools.cache(provenance.packages)  # a tenth of a second
CASES = str(Path(__file__).parent / "run_cases")
Answer = dict[str, Any]
Script = Callable[[Trial, Path], Answer]


def tiny() -> UseCase[Any]:
    """The use case of `run_cases/tiny.py`."""
    return find("tiny", (CASES,))


def done(**certificate: Any) -> Answer:
    """The answer of a trial that came to its end."""
    return {
        "kind": "done", "seconds": 1.5, "engines": [], "settings": {},
        "certificate": {"certified": True, "why": "", "links": [], **certificate},
    }  # fmt: skip


def error(message: str, **more: Any) -> Answer:
    """The answer of a trial that failed."""
    return {"kind": "error", "message": message, **more}


def measured(trial: Trial, folder: Path) -> Answer:
    """A trial of `tiny` that came to its end: a second of samples, an event, its results."""
    rate = {"lte-only": 10e6, "mptcp": 30e6, "trusted": 14e6}[trial.variant] + 1e5 * trial.repeat
    record = Recorder(folder, trial)
    for step in range(20):
        record.sample("sender", "goodput", rate, "bit/s", time_s=step * 0.05)
    record.event("halfway", time_s=0.5, step=10)
    record.result("leaked", 62_000 if trial.variant == "mptcp" else 0, "B")
    record.result("mean goodput", rate, "bit/s")
    record.close()
    return done()


class Told:
    """In place of `TrialProcess`: does what the script does, here."""

    script: Script

    def __init__(self, trial: Trial, folder: Path, **_facts: Any) -> None:
        self._what = trial, folder

    def run(self, _observer: Observer) -> Answer:
        return type(self).script(*self._what)

    @classmethod
    def by(cls, script: Script) -> type[Told]:
        """The class for trials that do what `script` does."""
        return type("Scripted", (cls,), {"script": staticmethod(script)})


def told(
    results: Path,
    script: Script = measured,
    observer: Observer | None = None,
    *,
    case: UseCase[Any] | None = None,
    **options: Any,
) -> Bundle:
    """Run `tiny` (or `case`) with trials that do what `script` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "TrialProcess", Told.by(script))
        patch.setattr(runner, "_check_results", lambda _results: None)  # needs a sandbox
        patch.setattr(runner.provenance, "packages", _packages)
        planned = runner.plan(case or tiny(), results=results, **options)
        return runner.execute(planned, observer)
