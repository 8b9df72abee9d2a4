"""Against emulators that are not Mininet: a star comes up and goes, ours and NeST's.

NeST (PyPI `nest`) goes into an environment of its own in the cache, by `--fetch`.  It wants a
folder /usr/lib/tc, which Debian has elsewhere: it is shown one in its sandbox.  IPMininet is
tried in the same way, and CORE looked for; what keeps them out stands under the table.

A contender's process starts, imports, builds, answers a ping between the first and the last host,
and takes down again by its own means; only building and taking down count.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks._compare import Ratio, alone, interleaved, print_result, say, table
from testbed import cache
from testbed.errors import ExperimentError, FeatureError
from testbed.kernel.namespaces import mount

_NEST = "nest==0.4.4"
_IPMININET = "ipmininet==1.0"
_LIB = Path("/usr/lib")

_IN_NEST = """
import json, logging, sys, time
logging.disable(logging.CRITICAL)
from nest.topology import Node, Switch, connect
from nest.clean_up import delete_namespaces, kill_processes
hosts = int(sys.argv[1])
start = time.perf_counter()
switch, nodes = Switch("s1"), []
for number in range(1, hosts + 1):
    node = Node("h" + str(number))
    port, _other = connect(node, switch)
    port.set_address("10.0.{}.{}/8".format(number >> 8, number & 255))
    nodes.append(node)
up = time.perf_counter() - start
reached = nodes[0].ping("10.0.{}.{}".format(hosts >> 8, hosts & 255), packets=1, verbose=0)
start = time.perf_counter()
kill_processes()
delete_namespaces()
print(json.dumps([up, time.perf_counter() - start, bool(reached)]))
"""


class Seconds(NamedTuple):
    """To come up, and to go."""

    up: float
    down: float


@click.command()
@click.option("--hosts", multiple=True, type=click.IntRange(2, 250), help="Sizes (10 50).")
@click.option("--rounds", default=2, type=click.IntRange(1), help="Rounds of both (2).")
@click.option("--fetch", is_flag=True, help="Install the contenders into the cache.")
@click.option("--quick", is_flag=True, help="A star of 10, once.")
@click.option("--json", "as_json", is_flag=True, help="Print every round as JSON.")
def command(hosts: tuple[int, ...], rounds: int, fetch: bool, quick: bool, as_json: bool) -> None:
    """Bring-up and teardown of a star against NeST; why IPMininet and CORE are not there."""
    nest = cache.environment("nest", [_NEST], fetch=fetch)
    if nest is None:
        raise FeatureError("NeST is not in the cache", remedy="testbed bench contenders --fetch")
    found = {
        count: _star(count, 1 if quick else rounds, nest)
        for count in hosts or ((10,) if quick else (10, 50))
    }
    out = {name: why(fetch) for name, why in _OUT.items()}
    facts = {"stars": found, "out": out}
    lines = "\n".join(f"- {name}: {why}" for name, why in out.items())
    print_result(facts, f"{_table(found)}\n\nNot compared:\n\n{lines}", as_json)


def _star(hosts: int, rounds: int, nest: Path) -> dict[str, list[Seconds]]:
    say(f"a star of {hosts} hosts ...")
    contenders: dict[str, Callable[[], Seconds]] = {
        "ours": partial(alone, _ours, hosts),
        "nest": partial(alone, _nest, hosts, nest),
    }
    return interleaved(contenders, rounds)


def _ours(hosts: int) -> Seconds:
    from mininet.log import setLogLevel
    from mininet.topo import SingleSwitchTopo

    from testbed.network import Network

    setLogLevel("critical")
    start = time.perf_counter()
    net = Network(SingleSwitchTopo(hosts))
    net.start()
    up = time.perf_counter() - start
    if net.ping([net.hosts[0], net.hosts[-1]]):
        raise ExperimentError(f"the star of {hosts} hosts does not carry packets")
    start = time.perf_counter()
    net.stop()
    return Seconds(up, time.perf_counter() - start)


def _nest(hosts: int, programs: Path) -> Seconds:
    if not (_LIB / "tc").exists():
        Path("/run/lower/tc").mkdir(parents=True)
        mount("overlay", str(_LIB), "overlay", data=f"lowerdir=/run/lower:{_LIB}")
    # into files: processes that NeST leaves behind would keep a pipe open
    said, complained = Path("/run/said"), Path("/run/complained")
    with said.open("w") as out, complained.open("w") as err:
        command = [str(programs / "python"), "-c", _IN_NEST, str(hosts)]
        status = subprocess.run(command, stdout=out, stderr=err, check=False, cwd="/run").returncode
    lines = said.read_text().strip().splitlines()
    if status or not lines:
        last = (complained.read_text().strip().splitlines() or ["no reason given"])[-1]
        raise ExperimentError(f"NeST did not build a star of {hosts} hosts: {last}")
    up, down, reached = json.loads(next(line for line in lines if line.startswith("[")))
    if not reached:
        raise ExperimentError(f"NeST's star of {hosts} hosts does not carry packets")
    return Seconds(up, down)


# -- those that are out --------------------------------------------------------------------------


def _why_no_ipmininet(fetch: bool) -> str:
    say("IPMininet ...")
    try:
        found = cache.environment("ipmininet", [_IPMININET], fetch=fetch)
    except FeatureError as error:
        reason = error.message.rpartition(": ")[2]
        python = ".".join(map(str, sys.version_info[:2]))
        return f"PyPI's {_IPMININET} does not install on Python {python} ({reason})"
    if found is None:
        return "not tried: give --fetch"
    return "it installs here now, and a comparison can be written"


def _why_no_core(_fetch: bool) -> str:
    if shutil.which("core-daemon"):
        return "it is installed here, but a comparison is not written"
    shown = subprocess.run(
        ["apt-cache", "policy", "core-network"], capture_output=True, text=True, check=False
    )
    served = "Candidate: " in shown.stdout and "(none)" not in shown.stdout
    return "not installed" if served else "neither PyPI nor this distribution has a package of it"


_OUT: dict[str, Callable[[bool], str]] = {"IPMininet": _why_no_ipmininet, "CORE": _why_no_core}


def _table(found: dict[int, dict[str, list[Seconds]]]) -> str:
    rows: list[list[Any]] = []
    for hosts, rounds in found.items():
        row: list[Any] = [hosts]
        for part in ("up", "down"):
            ours, nest = ([getattr(each, part) for each in rounds[who]] for who in ("ours", "nest"))
            row += [min(ours), min(nest), Ratio.of(nest, ours)]
        rows.append(row)
    head = ["hosts", "up s", "NeST up s", "NeST/ours", "down s", "NeST down s", "NeST/ours"]
    return table(head, rows)
