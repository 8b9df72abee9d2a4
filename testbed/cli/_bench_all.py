"""Run benchmarks one after the other, each in a process of its own, and say what the machine was.

A benchmark that fails, or takes longer than the limit, does not stop the others.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import click

from testbed.cli import _blocks
from testbed.cli._watch import Watch, machine_line
from testbed.errors import MachineError

LIMIT_S = 900.0
"""A benchmark that runs longer than this is ended."""

_REFUSED = MachineError.exit_status
_REASON = re.compile(r"testbed: |\w+(Error|Exception|Interrupt)\b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one benchmark: `table` is its standard output, `machine` one line."""

    name: str
    command: str
    status: int
    table: str
    last_words: str
    seconds: float
    machine: str

    @property
    def verdict(self) -> str:
        """ "done", "not measurable here: WHY" or "FAILED: WHY"."""
        if self.status == 0:
            return "done"
        kind = "not measurable here" if self.status == _REFUSED else "FAILED"
        # the last line may also be one of progress: a benchmark may fail by what it found
        why = self.last_words if _REASON.match(self.last_words) else f"status {self.status}"
        return f"{kind}: {why.removeprefix('testbed: ')}"

    @property
    def failed(self) -> bool:
        """Did it end in another way than by measuring, or by saying what the machine lacks?"""
        return self.status not in (0, _REFUSED)

    def markdown(self) -> str:
        """The table under a line that says how it came about."""
        return f"`{self.command}`, {date.today()}: {self.machine}\n\n{self.table.strip()}"

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = {
            "verdict": self.verdict,
            "seconds": round(self.seconds, 1),
            "machine": self.machine,
        }
        if self.status == 0:
            found["found"] = json.loads(self.table)
        return found


def run_all(options: Mapping[str, list[str]], *, page: Path | None, as_json: bool) -> int:
    """Run the benchmarks named, with their options; 1 when one failed."""
    outcomes = []
    for number, (name, words) in enumerate(options.items(), 1):
        click.echo(f"[{number} of {len(options)}] {name}", err=True)
        outcome = run(name, words)
        outcomes.append(outcome)
        if not as_json and outcome.table.strip():  # one that failed may say by what
            click.echo(f"## {name}\n\n{outcome.markdown()}\n")
        if page and outcome.status == 0:
            page.write_text(_blocks.put(page.read_text(), name, outcome.markdown()))
    if as_json:
        click.echo(json.dumps({each.name: each.facts() for each in outcomes}, indent=1))
    for each in outcomes:
        click.echo(f"{each.name}: {each.verdict} ({each.seconds:.0f} s)", err=True)
    return int(any(each.failed for each in outcomes))


def run(name: str, options: list[str], *, limit_s: float = LIMIT_S) -> Outcome:
    """Run one benchmark; its standard error is passed on as it comes."""
    words = ["bench", name, *options]
    watch, start = Watch(), time.monotonic()
    status, table, last_words = _execute(
        [sys.executable, "-m", "testbed.cli.main", *words], limit_s
    )
    return Outcome(
        name=name,
        command=" ".join(["testbed", *words]),
        status=status,
        table=table,
        last_words=last_words,
        seconds=time.monotonic() - start,
        machine=machine_line(watch.end()),
    )


def _execute(command: list[str], limit_s: float) -> tuple[int, str, str]:
    """(exit status, standard output, last line of standard error) of a command."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        timer = threading.Timer(limit_s, child.kill)  # its sandboxes end with it
        timer.start()
        heard: list[str] = []
        reader = threading.Thread(target=lambda: heard.append(child.stdout.read()))  # type: ignore[union-attr]
        reader.start()
        last = ""
        try:
            for line in child.stderr:
                click.echo(f"  {line}", err=True, nl=False)
                last = line.strip() or last
            status = child.wait()
        finally:
            expired = not timer.is_alive()
            timer.cancel()
            child.kill()
            reader.join()
    return status, heard[0], f"testbed: ended after {limit_s:.0f} s" if expired and status else last
