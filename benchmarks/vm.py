"""Links side by side: the fabric here, and the fabric and netem in a virtual machine.

For machines whose kernel has no netem.  The machine (see `testbed.vm`) has a kernel of Debian's
with netem, and is emulated instruction by instruction: its timers are late and its processes
slow, for both engines alike.  The conformance tests of the engines run in it first.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks import links
from benchmarks._compare import print_result, say, table
from testbed import vm
from testbed.errors import ExperimentError, FeatureError, ParameterError
from testbed.links import LinkSpec

_TESTS = ("tests/test_links_conformance.py", "tests/test_links_engines.py")
_TIMELESS = "not fabric and not rate and not queue_in and not serialisation and not seldom_long"
_ROOT = Path(__file__).parent.parent


@click.command()
@click.option("--kernel", default="", metavar="VERSION", help='E.g. "6.1" (newest that is there).')
@click.option("--fetch", is_flag=True, help="Get virtme-ng and Debian's kernel into the cache.")
@click.option("--tests/--no-tests", default=True, help="Run the conformance tests in it.")
@click.option("--quick", is_flag=True, help="Two specifications, no tests.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(kernel: str, fetch: bool, tests: bool, quick: bool, as_json: bool) -> int:
    """Links on the fabric here, and on the fabric and netem in a VM whose kernel has netem.

    Exit status 1 when a conformance test fails in there.
    """
    if not re.fullmatch(r"[\d.]*", kernel):
        raise ParameterError(f"--kernel {kernel}", remedy='give the start of a version, as "6.1"')
    if fetch:
        say("fetching virtme-ng and a kernel, unless they are there ...")
        vm.fetch(kernel)
    elif lacks := vm.missing():
        what, _semicolon, remedy = lacks.partition("; ")
        raise FeatureError(what, remedy=remedy)
    tested = "" if quick or not tests else _conformance(kernel)
    rates = (10,) if quick else (1, 20)
    specs = [LinkSpec(bw, "10ms", loss=2) for bw in rates]  # rates are measured without losses
    rows = [*_here(specs), *_there(specs, kernel)]
    found = {"rows": rows, "tests": tested}
    print_result(found, _table(rows) + (f"\n\n{tested}" if tested else ""), as_json)
    return int(bool(re.search("failed|error|no answer", tested)))


def _conformance(kernel: str) -> str:
    say("conformance tests in the machine ...")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *_TESTS]
    # one processor: frames that leave by two may swap
    status, output = vm.run([*command, "-k", _TIMELESS], folder=_ROOT, kernel=kernel, cpus=1)
    last = output.strip().splitlines()[-1] if output.strip() else f"no answer (status {status})"
    for line in output.splitlines():
        if line.startswith("FAILED"):
            say(line)
    return (
        "Conformance tests of the engines htb and netem in the machine, those that judge a rate "
        f"or a time left out: {_counts(last)}."
    )


def _counts(last: str) -> str:
    """ "37 passed, 1 failed" of pytest's last line, without the time it took."""
    return ", ".join(re.findall(r"\d+ (?:passed|failed|errors?)", last)) or last


def _here(specs: list[LinkSpec]) -> list[dict[str, Any]]:
    say("fabric here ...")
    return [
        {**row, "kernel": os.uname().release, "where": "here"}
        for row in links.measure("fabric", specs)
    ]


def _there(specs: list[LinkSpec], kernel: str) -> list[dict[str, Any]]:
    say("fabric and netem in the machine ...")
    asked = json.dumps([spec.as_dict() for spec in specs])
    status, output = vm.run(
        [sys.executable, "-m", "benchmarks.vm", asked], folder=_ROOT, kernel=kernel
    )
    if status:
        raise ExperimentError(f"the links could not be measured in the machine (status {status})")
    rows: list[dict[str, Any]] = json.loads(output)
    return rows


def _table(rows: list[dict[str, Any]]) -> str:
    head = ("engine", "kernel", *links.HEAD[1:])
    order = sorted(rows, key=lambda row: (row["bw"], row["loss"]))
    return table(head, [_cells(row) for row in order])


def _cells(row: dict[str, Any]) -> list[object]:
    engine, *rest = links.cells(row)
    return [f"{engine} {'here' if row['where'] == 'here' else 'in VM'}", row["kernel"], *rest]


def inside(asked: str) -> str:
    """In the machine: the rows of both engines, as JSON."""
    specs = [LinkSpec(**fields) for fields in json.loads(asked)]
    about = {"kernel": os.uname().release, "where": "VM"}
    return json.dumps(
        [
            {**row, **about}
            for engine in ("fabric", "netem")
            for row in links.measure(engine, specs, 1)
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(inside(sys.argv[1]))
