"""What commands that run something share: their options, how to run, what to tell, how to end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from testbed.cli._terminal import out, print_claims, working

if TYPE_CHECKING:
    from testbed.report.publish import Published
    from testbed.run.bundle import Bundle
    from testbed.run.runner import Plan

F = TypeVar("F", bound=Callable[..., Any])

_OBSERVE_OPTIONS = (
    click.option(
        "--pcap",
        multiple=True,
        metavar="NODE-INTF",
        help="Capture on this interface (h1-eth0) into the bundle's pcap/.",
    ),
    click.option(
        "--pcap-ring",
        "ring",
        default="10x16MB",
        show_default=True,
        metavar="NxSIZE",
        help="Of a capture keep the last N files of SIZE.",
    ),
    click.option(
        "--pcap-snap",
        "snap",
        default=0,
        metavar="BYTES",
        help="Keep only the beginning of each frame.",
    ),
)
_RUN_OPTIONS = (
    click.option("--repeat", "repeats", type=int, metavar="N", help="Trials of each variant."),
    click.option("--seed", default=1, show_default=True, help="Fixes losses and workload."),
    click.option("--quick", is_flag=True, help="Fewer, shorter trials: a first look."),
    click.option("--engine", default="auto", show_default=True, help="auto, fabric or netem."),
    click.option("--results", type=click.Path(path_type=Path), default=Path("results"),
                 show_default=True, metavar="DIR", help="Where bundles go."),
    click.option("--debug", is_flag=True, help="Show tracebacks of what fails."),
)  # fmt: skip


def run_options(function: F) -> F:
    """How often, with what seed, on what engine, into which folder."""
    for option in reversed(_RUN_OPTIONS):
        function = option(function)
    return function


def observe_options(function: F) -> F:
    """What to capture."""
    for option in reversed(_OBSERVE_OPTIONS):
        function = option(function)
    return function


def run_planned(planned: Plan, debug: bool) -> tuple[Bundle, Published | None]:
    """Run and publish; what cannot be published any more (Ctrl-C) is None."""
    from testbed.cli._progress import watching
    from testbed.run.runner import execute

    with watching(planned.use_case.name) as observer:
        bundle = execute(planned, observer)
    if debug:
        for trial in bundle.run["trials"]:
            click.echo(trial.get("traceback", ""), err=True, nl=False)
    if bundle.ended_early:
        bundle.release_space()
        return bundle, None
    from testbed.report.publish import publish

    with working("judging claims and drawing figures"):
        published = publish(planned.use_case, bundle)
    bundle.release_space()
    return bundle, published


def facts_of(bundle: Bundle, published: Published | None) -> dict[str, Any]:
    """What --json prints of a run."""
    certificate = bundle.certificate()
    return {
        "bundle": str(bundle.path),
        "status": bundle.status,
        "certified": certificate["certified"],
        "why_not_certified": certificate["why"],
        "claims": [each.as_dict() for each in published.judged] if published else [],
        "figures": [str(path) for path in published.figures] if published else [],
        "report": str(published.report) if published else "",
        "observed": published.observed if published else "",
    }


def tell(bundle: Bundle, published: Published | None) -> None:
    """Verdicts, what is not drawn, the certificate, the cost of observing, and where it all is."""
    if published is None:
        return
    console = out()
    print_claims(console, published.judged)
    console.print()
    for each in published.drawn:
        if each.missing:
            console.print(f"figure {each.figure.id} not drawn: {each.missing}", markup=False)
    why = published.results.why_not_certified
    console.print(
        f"[yellow]not certified[/]: {why}"
        if why
        else "[green]certified[/]: every link did what it was told"
    )
    if published.observed:
        console.print(f"observation used {published.observed}", markup=False)
    console.print(f"report   {published.report}", markup=False, soft_wrap=True)
    console.print(f"figures  {bundle.path / 'figures'}", markup=False, soft_wrap=True)


def end(*bundles: Bundle) -> None:
    """Raise the error that the first incomplete bundle ends its command with."""
    from testbed.run.runner import status_error

    for bundle in bundles:
        error = status_error(bundle)
        if error is not None:
            raise error
