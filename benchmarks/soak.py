"""Many links that change at random under real load, for minutes: does it all end certified?

Every link joins two hosts.  A third of them carry a TCP flow, which fills them (iperf3, reno),
the others datagrams at a constant rate.  All the while links drawn at random get other rates,
delays, losses, jitter and reordering by `link.update`.  What comes of it is what a run gets: a
certificate.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any

import click
from mininet.topo import Topo

from benchmarks._compare import alone, print_result, say, table
from testbed.links import LinkSpec
from testbed.network import Network
from testbed.run.certificate import certify
from testbed.run.cpu import SPELL_S, CpuSampler
from testbed.run.probe import probe

_UPDATE_EVERY_S = 0.25
_WARM_UP_S = 1.0
_CBR_BPS, _CBR_BYTES = 1_000_000, 400


@click.command()
@click.option("--minutes", default=1.0, help="How long; 10 for a long run.")
@click.option("--links", default=20, type=click.IntRange(1, 200), help="How many links.")
@click.option("--seed", default=1, help="Fixes what is changed, when and to what, and the losses.")
@click.option("--workers", type=click.IntRange(1), help="Of the fabric (one a processor).")
@click.option("--quick", is_flag=True, help="Half a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(
    minutes: float, links: int, seed: int, workers: int | None, quick: bool, as_json: bool
) -> int:
    """Links changing at random under load, for a minute or more, and their certificate.

    Exit status 1 when it is not certified and nothing says why.
    """
    seconds = 30.0 if quick else minutes * 60
    say(f"{links} links for {seconds:.0f} s ...")
    found = alone(_soak, seconds, links, seed, workers)
    print_result(found, _markdown(found), as_json)
    return 0 if found["certified"] or found["disturbances"] else 1


class _Pairs(Topo):
    """Pairs of hosts, a link each."""

    def build(self, specs: list[LinkSpec] | None = None) -> None:
        """A pair for each specification."""
        for number, spec in enumerate(specs or ()):
            for side in (1, 2):
                self.addHost(f"{'ab'[side - 1]}{number}", ip=f"10.0.{number}.{side}/24")
            self.addLink(f"a{number}", f"b{number}", spec=spec)


def _soak(seconds: float, links: int, seed: int, workers: int | None) -> dict[str, Any]:
    random = Random(seed)
    specs = [LinkSpec(**_any_spec(random)) for _ in range(links)]
    with Network(_Pairs(specs=specs), engine="fabric", seed=seed, workers=workers) as net:
        delays = probe(net.links)
        kinds = {link.wire.name: kind for link, kind in _kinds(net)}
        with _load(net):
            time.sleep(_WARM_UP_S)
            cpu = CpuSampler()
            updates = _change(net, random, seconds, cpu)
        reports, statuses = net.engines.reports(), net.engines.workers()
    certificate = certify(
        reports, cpu.use, delays=delays, changed=frozenset(updates), workers=statuses
    )
    busy = sum(status.cpu_s for status in statuses) / seconds
    return {
        "seconds": seconds,
        "seed": seed,
        "certified": certificate.certified,
        "why": certificate.why,
        "disturbances": certificate.disturbances,
        "problems": certificate.problems,
        "processors_busy": cpu.use.mean,
        "stolen": cpu.use.steal,
        "worst_stolen": cpu.use.worst_steal,
        "others": cpu.use.others,
        "workers": len(statuses),
        "workers_busy_processors": busy,
        "rows": [
            _row(name, kind, [each for each in certificate.links if each.link == name], updates)
            for name, kind in kinds.items()
        ],
    }


def _kinds(net: Any) -> Iterator[tuple[Any, str]]:
    """The links and what they carry."""
    for number, link in enumerate(net.links):
        yield link, "datagrams" if number % 3 else "TCP"


@contextmanager
def _load(net: Any) -> Iterator[None]:
    """Traffic on every link, until the end of the block."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with ExitStack() as stack:
        for link, kind in _kinds(net):
            client, server = link.intf1.node, link.intf2.node
            words = f"iperf3 -t 0 -c {server.IP()}"
            if kind == "TCP":
                words += " -C reno"
            else:
                words += f" -u -b {_CBR_BPS} -l {_CBR_BYTES}"
            processes = [server.popen(["iperf3", "-s"], **quiet)]
            stack.callback(_end, processes)
            server.cmd("until ss -Htln sport = 5201 | grep -q .; do sleep 0.02; done")
            processes.append(client.popen(words.split(), **quiet))
        yield


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in reversed(processes):
        process.kill()
        process.wait()


def _change(net: Any, random: Random, seconds: float, cpu: CpuSampler) -> Counter[str]:
    """Change links at random, at steady intervals; how often each was changed."""
    updates: Counter[str] = Counter()
    began = now = time.monotonic()
    update_at = began + _UPDATE_EVERY_S
    while now < began + seconds:
        if now >= update_at:
            link = random.choice(net.links)
            link.update(**_any_spec(random))
            updates[link.wire.name] += 1
            update_at += _UPDATE_EVERY_S
        cpu.sample()
        time.sleep(SPELL_S)
        net.engines.check()
        now = time.monotonic()
    return updates


def _any_spec(random: Random) -> dict[str, Any]:
    """All fields of a specification but the queue, so that nothing is left from the one before."""
    delay = random.uniform(1, 60)
    return {
        "bw": round(random.uniform(2, 30), 1),
        "delay": round(delay, 2),
        "jitter": round(random.choice((0, 0, delay / 4)), 2),
        "loss": random.choice((0, 0, 0.1, 1, 3)),
        "reorder": random.choice((0, 0, 0, 1)),
    }


# -- the table -----------------------------------------------------------------------------------


def _row(name: str, kind: str, directions: Any, updates: Counter[str]) -> dict[str, Any]:
    worst = max(directions, key=lambda each: each.lag_p999_s)
    return {
        "link": name,
        "load": kind,
        "updates": updates[name],
        "packets": sum(each.packets for each in directions),
        "lag_ms": [
            value * 1e3
            for value in (worst.lag_p50_s, worst.lag_p99_s, worst.lag_p999_s, worst.lag_max_s)
        ],
        "outside_drops": sum(each.outside_drops for each in directions),
        "rate": [each.measured_rate_ratio for each in directions],
    }


def _markdown(found: dict[str, Any]) -> str:
    head = [
        *("link", "load", "updates", "packets", "rate while backlogged"),
        *("worst lag p50, p99, p99.9, max ms", "dropped outside"),
    ]
    rows = [
        [
            row["link"],
            row["load"],
            row["updates"],
            row["packets"],
            ", ".join(f"{ratio:.2%}" for ratio in row["rate"] if ratio is not None) or None,
            ", ".join(f"{value:.2f}" for value in row["lag_ms"]),
            row["outside_drops"],
        ]
        for row in found["rows"]
    ]
    verdict = "certified" if found["certified"] else f"not certified: {found['why']}"
    beside = "; ".join(found["disturbances"]) or "none known"
    total = {key: sum(row[key] for row in found["rows"]) for key in ("packets", "updates")}
    return (
        f"{table(head, rows)}\n\n"
        f"{found['seconds']:.0f} s, seed {found['seed']}: **{verdict}**. "
        f"{total['packets']} packets, {total['updates']} updates. "
        f"Processors {found['processors_busy']:.0%} busy, "
        f"{found['workers_busy_processors']:.2f} of them with the fabric's {found['workers']} "
        f"workers; {found['stolen']:.2%} stolen, {found['others']:.1%} used by others. "
        f"Disturbances: {beside}."
    )
