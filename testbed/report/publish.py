"""From a bundle to what people read: verdicts in run.json, figures/, report.html."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import ExperimentError
from testbed.observe.figures import observed_figures
from testbed.observe.series import cost_in_words
from testbed.report import expectations
from testbed.report.figures import Drawn, draw
from testbed.report.results import Results
from testbed.run.bundle import Bundle, write_file
from testbed.run.usecase import Claim, MissingData, UseCase
from testbed.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim and its verdict."""

    claim: Claim
    verdict: Verdict

    def as_dict(self) -> dict[str, str]:
        """As in `testbed run --json`: the verdict in words, why included."""
        return {
            "id": self.claim.id,
            "statement": self.claim.statement,
            "source": self.claim.source,
            "verdict": str(self.verdict),
            "measured": self.verdict.measured,
        }


@dataclass(frozen=True, kw_only=True)
class Published:
    """What was made of one or more bundles; `observed` says what observing them cost."""

    results: Results
    judged: tuple[Judged, ...]
    drawn: tuple[Drawn, ...]
    observed: str = ""
    figures: tuple[Path, ...] = ()
    report: Path | None = None


def judge(results: Results) -> tuple[Judged, ...]:
    """Judge every claim about what was tried; what lacks records is not measurable, and says why.

    Raises `ExperimentError` naming the claim whose judge fails.
    """
    return tuple(Judged(claim=each, verdict=_verdict(each, results)) for each in _claims(results))


def _claims(results: Results) -> Sequence[Claim]:
    own = (each for each in results.use_case.claims if results.about(each))
    return (*own, *expectations.claims(results))


def _verdict(claim: Claim, results: Results) -> Verdict:
    try:
        return claim.judge(results)
    except MissingData as error:
        return Verdict.not_measurable(error.message)
    except Exception as error:
        raise ExperimentError(
            f"claim {claim.id} of {results.use_case.name} cannot be judged: "
            f"{type(error).__name__}: {error}"
        ) from error


def study(use_case: UseCase[Any], bundles: Sequence[Bundle]) -> Published:
    """Judge and draw what `bundles` hold; nothing is written."""
    results = Results(use_case, bundles)
    own = (each for each in use_case.figures if results.about(each))
    figures = (*own, *observed_figures(results))
    drawn = tuple(draw(each, results) for each in figures)
    return Published(
        results=results, judged=judge(results), drawn=drawn, observed=cost_in_words(results)
    )


def publish(use_case: UseCase[Any], bundle: Bundle) -> Published:
    """Judge and draw one bundle and write all of it into its folder."""
    from testbed.report.html import render

    found = study(use_case, [bundle])
    bundle.run["verdicts"] = [each.as_dict() for each in found.judged]
    bundle.save()
    figures = save_figures(found.drawn, bundle.path / "figures")
    report = bundle.path / "report.html"
    write_file(report, render(found))
    return dataclasses.replace(found, figures=figures, report=report)


def save_figures(drawn: Sequence[Drawn], folder: Path) -> tuple[Path, ...]:
    """Write every figure as SVG and PNG; the paths of the SVGs."""
    folder.mkdir(exist_ok=True)
    written = []
    for each in drawn:
        if each.missing:
            continue
        path = folder / f"{each.figure.id}.svg"
        write_file(path, each.svg)
        write_file(path.with_suffix(".png"), each.png)
        written.append(path)
    return tuple(written)
