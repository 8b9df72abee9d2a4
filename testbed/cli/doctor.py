"""`testbed doctor`: what can this machine do?"""

from __future__ import annotations

import dataclasses
import json

import click
from rich.console import Console
from rich.table import Table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(as_json: bool) -> int:
    """Probe this machine and say what is missing and how to get it.

    Exit status 0 when everything that has no substitute is there, else 2.
    """
    from testbed.doctor import examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for finding in findings:
            mark = "[green]ok[/]" if finding.ok else "[red]missing[/]"
            if not finding.ok and not finding.required:
                mark = "[yellow]absent[/]"
            lines = finding.detail
            if finding.remedy:
                lines += f"\n[dim]{finding.needed_for}: {finding.remedy}[/]"
            table.add_row(mark, finding.name, lines)
        Console().print(table)
    return 0 if all(finding.ok or not finding.required for finding in findings) else 2


commands = [doctor]
