"""Commands on what was recorded: report, compare.  Nothing is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.cli._terminal import common, out, print_claims, print_json, working

if TYPE_CHECKING:
    from testbed.report.compare import Row
    from testbed.report.publish import Published
    from testbed.report.results import Results
    from testbed.run.bundle import Bundle
    from testbed.run.usecase import UseCase


@click.command("report")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path),
                metavar="BUNDLE...")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE.html",
              help="Where the report goes; figures go beside it.")  # fmt: skip
@common
def report_command(
    paths: Sequence[Path], output: Path | None, folders: tuple[str, ...], as_json: bool
) -> None:
    """Judge the claims and draw the figures of one bundle or many again, without running.

    BUNDLE may also be a folder that holds bundles.
    """
    from testbed.report.publish import publish

    case, bundles = load(paths, folders)
    with working("judging claims and drawing figures"):
        if len(bundles) == 1 and output is None:
            published = publish(case, bundles[0])
        else:
            published = write_report(case, bundles, output or Path(f"report-{case.name}.html"))
    if as_json:
        print_json(_facts(published))
        return
    console = out()
    print_claims(console, published.judged)
    for each in published.drawn:
        if each.missing:
            console.print(f"figure {each.figure.id} not drawn: {each.missing}", markup=False)
    console.print(f"report   {published.report}", markup=False, soft_wrap=True)


def load(paths: Sequence[Path], folders: tuple[str, ...]) -> tuple[UseCase[Any], list[Bundle]]:
    """The bundles at `paths` and their use case; raises `UserError` where there is none."""
    from testbed.errors import UserError
    from testbed.run.bundle import Bundle, find_bundles
    from testbed.run.discovery import find

    found: dict[Path, None] = {}
    for path in paths:
        here = [path] if (path / "run.json").exists() else find_bundles(path)
        if not here:
            raise UserError(
                f"{path} is not a bundle, nor does it hold any",
                remedy="give a folder results/USE-CASE/RUN",
            )
        found.update(dict.fromkeys(here))
    bundles = [Bundle.open(path) for path in found]
    return find(bundles[0].use_case, folders), bundles


def write_report(case: UseCase[Any], bundles: Sequence[Bundle], target: Path) -> Published:
    """A report on many bundles at `target`, its figures in a folder beside it."""
    from testbed.report.html import render
    from testbed.report.publish import save_figures, study
    from testbed.run.bundle import write_file

    published = study(case, bundles)
    target.parent.mkdir(parents=True, exist_ok=True)
    figures = save_figures(published.drawn, target.with_name(f"{target.stem}-figures"))
    write_file(target, render(published))
    return dataclasses.replace(published, figures=figures, report=target)


def _facts(published: Published) -> dict[str, Any]:
    results = published.results
    return {
        "bundles": [str(each.path) for each in results.bundles],
        "complete": not results.why_incomplete,
        "certified": results.certified,
        "why_not_certified": results.why_not_certified,
        "claims": [each.as_dict() for each in published.judged],
        "figures": [str(path) for path in published.figures],
        "missing_figures": {d.figure.id: d.missing for d in published.drawn if d.missing},
        "report": str(published.report),
    }


@click.command("compare")
@click.argument("first", type=click.Path(path_type=Path), metavar="BUNDLE")
@click.argument("second", type=click.Path(path_type=Path), metavar="BUNDLE")
@common
def compare_command(first: Path, second: Path, folders: tuple[str, ...], as_json: bool) -> None:
    """Two runs of a use case side by side: parameters, verdicts and every metric."""
    from testbed.report.compare import changed_parameters, compare
    from testbed.report.results import Results

    case, bundles = load([first, second], folders)
    if len(bundles) != 2:
        raise click.UsageError("compare needs two different bundles")
    results = Results(case, bundles)
    rows, changed = compare(results), changed_parameters(results)
    if as_json:
        print_json({
            "bundles": [str(each.path) for each in bundles],
            "parameters": changed,
            "metrics": [row.as_dict() for row in rows],
        })  # fmt: skip
    else:
        _print_comparison(results, rows, changed)


def _print_comparison(
    results: Results, rows: Sequence[Row], changed: dict[str, tuple[Any, Any]]
) -> None:
    from rich.table import Table

    console, names = out(), [bundle.path.name for bundle in results.bundles]
    for key, (one, two) in changed.items():
        console.print(f"{key}: {one} in {names[0]}, {two} in {names[1]}", markup=False)
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    for column in ("metric", "variant", *names, "change"):
        table.add_column(column, justify="right" if column in (*names, "change") else "left")
    for row in rows:
        what = f"{row.metric} {row.source}".strip() + (f" ({row.unit})" if row.unit else "")
        change = "" if row.change is None else f"{row.change:+.1%}"
        shown = f"[bold]{change}[/]" if row.clear else f"[dim]{change}[/]"
        table.add_row(what, row.variant, *(str(each or "–") for each in (row.first, row.second)),
                      shown)  # fmt: skip
    console.print(table)
    console.print("Mean ± 95% confidence; bold: the intervals do not overlap.", style="dim")


commands: list[click.Command] = [report_command, compare_command]
