"""Commands that try things: run, sweep, reproduce; and those that say what there is: list, show."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.cli._running import end, facts_of, observe_options, run_options, run_planned, tell
from testbed.cli._terminal import common, out, print_json, working

if TYPE_CHECKING:
    from testbed.run.bundle import Bundle
    from testbed.run.usecase import UseCase

_variant_option = click.option(
    "--variant", "variants", multiple=True, metavar="NAME", help="Only this variant."
)


@click.command("run")
@click.argument("use_case", metavar="USE-CASE")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE",
              help="Change a parameter (--set wifi.bw=5Mb/s); see `testbed show`.")  # fmt: skip
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="Parameters from a file; --set goes before it.")  # fmt: skip
@_variant_option
@click.option("--observe", "every", default="", metavar="INTERVAL",
              help="Sample interfaces, queues and sockets this often (50ms).")  # fmt: skip
@observe_options
@run_options
@common
def run_command(
    use_case: str,
    settings: Sequence[str],
    config: Path | None,
    variants: Sequence[str],
    folders: tuple[str, ...],
    as_json: bool,
    debug: bool,
    every: str,
    pcap: tuple[str, ...],
    ring: str,
    snap: int,
    **options: Any,
) -> None:
    """Try a use case: every variant, several times; judge its claims and draw its figures."""
    from testbed.observe.settings import Settings
    from testbed.run.discovery import find
    from testbed.run.parameters import assignments, read_toml
    from testbed.run.runner import plan

    changes = {**(read_toml(config) if config else {}), **assignments(settings)}
    observe = Settings.parse(every=every, pcap=pcap, ring=ring, snap=snap)
    planned = plan(
        find(use_case, folders), changes=changes, variants=variants, folders=folders,
        observe=observe, **options,
    )  # fmt: skip
    bundle, published = run_planned(planned, debug)
    if as_json:
        print_json(facts_of(bundle, published))
    else:
        tell(bundle, published)
    end(bundle)


# -- many runs -----------------------------------------------------------------------------------


@click.command("sweep")
@click.argument("use_case", metavar="USE-CASE")
@click.argument("grid", type=click.Path(path_type=Path), metavar="GRID.toml")
@_variant_option
@run_options
@common
def sweep_command(
    use_case: str,
    grid: Path,
    folders: tuple[str, ...],
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Run a use case at every point of a grid, and report on all points together.

    GRID.toml names parameters and lists of their values (wifi.bw = [5, 20, "50Mb/s"]); every
    combination is one bundle.
    """
    from testbed.run.discovery import find
    from testbed.run.parameters import read_toml
    from testbed.run.runner import plan
    from testbed.run.sweep import points

    case = find(use_case, folders)
    found = points(case.Parameters(), read_toml(grid))
    plans = [plan(case, changes=each, folders=folders, **options) for each in found]
    bundles = []
    for number, planned in enumerate(plans, 1):
        shown = ", ".join(f"{key}={value}" for key, value in found[number - 1].items())
        click.echo(f"point {number}/{len(plans)}: {shown}", err=True)
        bundle, _published = run_planned(planned, debug)
        bundles.append(bundle)
        if bundle.ended_early:
            end(bundle)
    _report_sweep(case, bundles, options["results"], as_json)
    end(*bundles)


def _report_sweep(case: UseCase[Any], bundles: list[Bundle], results: Path, as_json: bool) -> None:
    from testbed.cli.report import write_report

    target = results / case.name / f"sweep-{time.strftime('%Y%m%d-%H%M%S')}.html"
    with working("reporting on all points"):
        published = write_report(case, bundles, target)
    if as_json:
        facts = [{"bundle": str(each.path), "status": each.status} for each in bundles]
        figures = [str(path) for path in published.figures]
        print_json({"report": str(published.report), "bundles": facts, "figures": figures})
    else:
        click.echo(f"report   {published.report}")


@click.command("reproduce")
@click.argument("figures", nargs=-1, metavar="[FIGURE]...")
@run_options
@common
def reproduce_command(
    figures: tuple[str, ...], folders: tuple[str, ...], as_json: bool, debug: bool, **options: Any
) -> None:
    """Draw figures of the deliverable anew, running the use cases behind them.

    FIGURE is USE-CASE, USE-CASE/FIGURE or a figure's own name; without any, all are drawn.
    """
    from testbed.run.runner import plan

    cases = list(_cases_of(figures, folders))
    plans = [plan(case, folders=folders, **options) for case, _wanted in cases]
    done, facts = [], []
    for planned, (_case, wanted) in zip(plans, cases, strict=True):
        bundle, published = run_planned(planned, debug)
        done.append(bundle)
        drawn = published.figures if published else ()
        shown = [str(path) for path in drawn if not wanted or path.stem in wanted]
        facts.append({**facts_of(bundle, published), "figures": shown})
        if not as_json:
            click.echo("\n".join(shown))
        if bundle.ended_early:
            break
    if as_json:
        print_json(facts)
    end(*done)


def _cases_of(
    figures: Sequence[str], folders: tuple[str, ...]
) -> Iterator[tuple[UseCase[Any], set[str]]]:
    """Use cases behind `figures`, each with the figures wanted of it (none: all)."""
    from testbed.errors import UserError
    from testbed.run.discovery import all_use_cases
    from testbed.run.parameters import nearest

    cases, broken = all_use_cases(folders)
    if broken and not figures:
        name, error = broken[0]
        raise UserError(f"use case {name} cannot be imported: {type(error).__name__}: {error}")
    known = {case.name: {each.id for each in case.figures} for case in cases}
    wanted: dict[str, set[str]] = {} if figures else {name: set() for name in known}
    for figure in figures:
        head, _slash, tail = figure.partition("/")
        case = head.replace("-", "_")
        if case in known and (not tail or tail in known[case]):
            wanted.setdefault(case, set()).update({tail} if tail else known[case])
            continue
        owners = [name for name, ids in known.items() if figure in ids]
        if len(owners) != 1:
            names = [f"{name}/{each}" for name, ids in known.items() for each in sorted(ids)]
            raise UserError(f"there is no figure {figure!r}", remedy=nearest(figure, names))
        wanted.setdefault(owners[0], set()).add(figure)
    yield from ((case, wanted[case.name]) for case in cases if case.name in wanted)


# -- what there is -------------------------------------------------------------------------------


@click.command("list")
@common
def list_command(folders: tuple[str, ...], as_json: bool) -> None:
    """The use cases there are."""
    from rich.markup import escape
    from rich.table import Table

    from testbed.run.discovery import all_use_cases

    cases, broken = all_use_cases(folders)
    if as_json:
        fields = ("name", "section", "title", "summary")
        print_json([{key: getattr(case, key) for key in fields} for case in cases])
    else:
        table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
        for column in ("use case", "section", "what it is"):
            table.add_column(column, no_wrap=column != "what it is")
        for case in cases:
            table.add_row(f"[bold]{case.name}[/]", case.section, escape(case.title))
        out().print(table)
    for name, error in broken:
        click.echo(f"{name} cannot be imported: {type(error).__name__}: {error}", err=True)


@click.command("show")
@click.argument("use_case", metavar="USE-CASE")
@common
def show_command(use_case: str, folders: tuple[str, ...], as_json: bool) -> None:
    """What a use case tries: its variants, parameters, claims and figures."""
    from testbed.cli._show import show_facts, show_text
    from testbed.run.discovery import find

    case = find(use_case, folders)
    if as_json:
        print_json(show_facts(case))
    else:
        show_text(case, out())


commands: list[click.Command] = [
    run_command,
    list_command,
    show_command,
    sweep_command,
    reproduce_command,
]
