"""What `testbed show` says of a use case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from testbed.run.usecase import UseCase


def show_facts(case: UseCase[Any]) -> dict[str, Any]:
    """The same as plain data."""
    params = case.Parameters()
    return {
        "name": case.name,
        "section": case.section,
        "title": case.title,
        "summary": case.summary,
        "variants": dict(case.variants),
        "repeats": case.repeats,
        "quick": {"repeats": case.quick_repeats, **case.quick},
        "parameters": [
            {
                "key": each.key,
                "type": each.type_name,
                "default": each.default,
                "unit": each.unit,
                "allowed": each.limits,
                "help": each.help,
            }
            for each in params.declarations()
        ],
        "claims": [
            {"id": each.id, "statement": each.statement, "source": each.source}
            for each in case.claims
        ],
        "figures": [
            {"id": each.id, "title": each.title, "caption": each.caption} for each in case.figures
        ],
        "more": [{"heading": heading, "text": text} for heading, text in case.explain(params)],
    }


def show_text(case: UseCase[Any], console: Console) -> None:
    """For the terminal."""
    facts = show_facts(case)
    console.print(f"[bold]{case.title or case.name}[/]  [dim]{case.section}[/]")
    console.print(facts["summary"], markup=False)
    _section(console, "Variants", [(name, text) for name, text in facts["variants"].items()])
    _parameters(console, facts)
    _section(console, "Claims", [
        (each["id"], f"{each['statement']} ({each['source']})") for each in facts["claims"]
    ])  # fmt: skip
    _section(console, "Figures", [
        (each["id"], f"{each['title']}. {each['caption']}") for each in facts["figures"]
    ])  # fmt: skip
    for each in facts["more"]:
        console.print(f"\n[bold]{each['heading']}[/]")
        console.print(each["text"], markup=False)


def _table(console: Console, title: str, columns: list[str], rows: list[list[str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        box=None, padding=(0, 2, 0, 0), show_edge=False, show_header=any(columns), title=None
    )
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number < len(columns) - 1)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(f"\n[bold]{title}[/]")
    console.print(table)


def _section(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        _table(console, title, ["", ""], [list(row) for row in rows])


def _parameters(console: Console, facts: dict[str, Any]) -> None:
    rows = [
        [
            each["key"],
            " ".join(filter(None, (_text(each["default"]), each["unit"]))),
            ". ".join(filter(None, (each["help"], each["allowed"]))),
        ]
        for each in facts["parameters"]
    ]
    if rows:
        _table(console, "Parameters (--set NAME=VALUE)", ["name", "default", "what it is"], rows)
    quick = ", ".join(f"{key}={value}" for key, value in facts["quick"].items())
    console.print(f"\n{facts['repeats']} repeats; with --quick: {quick}", markup=False)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
