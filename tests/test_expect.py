"""What topologies state of themselves: each kind both ways, mistakes, reports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mininet.topo import Topo

from testbed.errors import TopologyError, UserError
from testbed.network import Network, Router
from testbed.network.expect import (
    AllReachable,
    Check,
    Delay,
    Expectation,
    Isolated,
    Loss,
    Rate,
    Reachable,
    check,
    stated,
)
from testbed.network.expect import (
    Path as Way,
)
from testbed.network.expect_bounds import _wilson
from testbed.network.validate import refuse_bad
from testbed.verdict import FAILS, HOLDS, NOT_MEASURABLE, Verdict

live = pytest.mark.live


class Office(Topo):
    """A server behind two routers, a guest behind another, and two nodes nobody reaches."""

    def build(self) -> None:
        for name in ("r1", "r2", "r3"):
            self.addHost(name, cls=Router)
        for name in ("pc", "server", "guest", "a", "b"):
            self.addHost(name)
        self.addLink("pc", "r1", bw=10, delay="5ms", intfName1="wifi")
        self.addLink("r1", "r2", delay="3ms")
        self.addLink("r2", "server")
        self.addLink("r1", "r3")
        self.addLink("guest", "r3", loss=20, delay="1ms")
        self.addLink("a", "b")


def explode(_net: Any) -> bool:
    raise KeyError("server")


async def patient(net: Any) -> Verdict:
    return Verdict.holds(f"{len(net.hosts)} nodes")


STATED: list[tuple[str, str, Callable[[], Expectation]]] = [
    (HOLDS, r"IPv4: [\d.]+ ms round trip, IPv6:", lambda: Reachable("pc", "server")),
    (FAILS, r"IPv4: \S+ is unreachable|no answer|knows no way|unreachable",
     lambda: Reachable("pc", "a")),
    (NOT_MEASURABLE, "pc has no interface lte", lambda: Reachable("pc:lte", "server")),
    (HOLDS, "IPv4: no answer, IPv6: no answer", lambda: Isolated("a", "pc")),
    (FAILS, "IPv6: answered from fd00", lambda: Isolated("pc", "server", family="ipv6")),
    (HOLDS, "IPv4: r1 r2 server, IPv6: r1 r2 server",
     lambda: Way("pc:wifi", "server", via=["r1", "r2"])),
    (FAILS, "r1 r2 server", lambda: Way("pc", "server", via=["r1", "r3"])),
    (HOLDS, r"2 routers", lambda: Way("pc", "server", hops=2)),
    (FAILS, "no answer from a", lambda: Way("pc", "a", hops=2, family="ipv4")),
    (HOLDS, "Mb/s", lambda: Rate("pc", "server", at_least="2Mb/s", at_most="10Mb/s", seconds=0.5)),
    (FAILS, "Mb/s", lambda: Rate("server", "pc", at_most="50kb/s", family="ipv4", seconds=0.3)),
    (NOT_MEASURABLE, "no connection", lambda: Rate("pc", "a", at_least="1Mb/s", family="ipv4")),
    (HOLDS, "ms", lambda: Delay("pc", "server", at_least="8ms", at_most="1s")),
    (FAILS, "ms", lambda: Delay("pc", "server", at_most=4)),
    (NOT_MEASURABLE, "no datagram", lambda: Delay("pc", "a", at_most=4, family="ipv4")),
    (HOLDS, "%", lambda: Loss("guest", "r3", at_least=5, at_most=40, packets=150)),
    (FAILS, "%", lambda: Loss("guest", "r3", at_most=1, packets=150)),
    (FAILS, r"\d+ of \d+ pairs; ", lambda: AllReachable(family="ipv4")),
    (HOLDS, "8 nodes", lambda: Check("there are eight", patient)),
    (FAILS, "False", lambda: Check("there is nobody", lambda net: len(net.hosts) == 0)),
    (NOT_MEASURABLE, "KeyError: 'server'", lambda: Check("it explodes", explode)),
]  # fmt: skip


@live
def test_every_kind_holds_fails_and_says_when_it_cannot_be_measured() -> None:
    expectations = [make() for _outcome, _measured, make in STATED]
    with Network(Office()) as net:
        outcomes = check(net, expectations)
    for (outcome, measured, _make), found in zip(STATED, outcomes, strict=True):
        verdict = found.verdict
        said = f"{found.expectation}: {verdict} {verdict.measured}"
        assert verdict.outcome == outcome, said
        assert re.search(measured, verdict.measured or verdict.why), said


def test_a_statement_is_in_words_and_has_its_line() -> None:
    said = Rate("a", "b", at_least="9Mb/s", at_most="10Mb/s", family="ipv4")
    assert str(said) == "TCP goodput from a to b (ipv4) at least 9Mb/s and at most 10Mb/s"
    assert re.fullmatch(r"topology, \S*test_expect\.py:\d+", said.source)
    assert str(Way("a", "b", via=["r1", "r2"])) == "a is routed to b over r1 r2"
    assert str(Loss("a", "b", at_most=2)) == "loss from a to b at most 2%"
    assert str(Delay("a", "b", at_most=2)) == "one-way delay from a to b at most 2 ms"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rate("a", "b", at_least="fast"), "at_least is 'fast'"),
        (lambda: Rate("a", "b", at_least=-1), "at_least is -1"),
        (lambda: Rate("a", "b"), "give at_least="),
        (lambda: Delay("a", "b", at_most="2 parsecs"), "at_most is '2 parsecs'"),
        (lambda: Delay("a", "b", at_least=3, at_most=2), "a range that is not empty"),
        (lambda: Loss("a", "b", at_most=101), "at_most is 101"),
        (lambda: Way("a", "b"), "give via= or hops="),
        (lambda: Reachable("a", "b", family="ipx"), "family is 'ipx'"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(
    make: Callable[[], Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert re.match(r"\S*test_expect\.py:\d+: ", str(caught.value))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reachable("pc", "sever"), "there is no node 'sever'"),
        (lambda: Way("pc", "server", via=["r9"]), "there is no node 'r9'"),
        (lambda: Isolated("pc:lte", "server"), "pc has no interface 'lte'"),
        (
            lambda: Rate("pc", "server", at_least="11Mb/s"),
            r"no link of pc has more than 1e\+07 b/s",
        ),
    ],
)
def test_mistakes_are_refused_before_anything_is_built(
    make: Callable[[], Any], message: str
) -> None:
    topo = Office()
    topo.expect = [make()]
    with pytest.raises(TopologyError, match=message) as caught:
        refuse_bad(topo)
    assert re.match(r"\S*test_expect\.py:\d+: expectation \(", str(caught.value))


def test_a_list_or_a_method_states_it() -> None:
    topo = Office()
    assert stated(topo) == []
    topo.expect = lambda: [AllReachable()]
    assert [str(each) for each in stated(topo)] == ["everybody reaches everybody"]
    topo.expect = ["h1 reaches h2"]
    with pytest.raises(TopologyError, match=r"Office\.expect holds 'h1 reaches h2'"):
        stated(topo)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share(case: tuple[int, int]) -> None:
    hits, of = case
    low, high = _wilson(hits, of)
    assert -1e-9 <= low <= hits / of + 1e-9
    assert hits / of - 1e-9 <= high <= 1 + 1e-9


@live
@pytest.mark.parametrize("name", ["star", "dumbbell", "fat_tree", "mobile", "devices", "two_isps"])
def test_what_the_topologies_here_state_holds(name: str) -> None:
    topo = import_module(f"topologies.{name}").topos[name]()
    with Network(topo) as net:
        outcomes = check(net, stated(topo))
    assert outcomes
    assert [o.as_dict() for o in outcomes if o.verdict.outcome != HOLDS] == []


# -- where it is shown ---------------------------------------------------------------------------

FILE = """
from mininet.topo import SingleSwitchTopo
from testbed.network.expect import Isolated, Reachable

class Two(SingleSwitchTopo):
    expect = [Reachable("h1", "h2"), Isolated("h1", "h2")]
"""


def run(*command: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "testbed.cli.main", *command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def test_the_command_shows_them_and_fails(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(FILE)
    done = run("topo", file, "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert [each["outcome"] for each in found["expectations"]] == [HOLDS, FAILS]
    assert found["expectations"][1]["source"].endswith("net.py:6")
    assert found["ok"] is False


CASE = """
from mininet.topo import Topo
from testbed.network.expect import Delay, Isolated
from testbed.run import Claim, Parameters, UseCase, Verdict

class Wired(Topo):
    def build(self):
        self.addHost("h1"); self.addHost("h2")
        self.addLink("h1", "h2", delay="5ms")
    def expect(self):
        return [Delay("h1", "h2", at_least="5ms"), Isolated("h1", "h2")]

class Stating(UseCase[Parameters]):
    name = "stating"
    title = "It states"
    Parameters = Parameters
    variants = {"one": "the only one"}
    claims = (Claim("own", "It has a claim of its own", "D0", lambda r: Verdict.holds("yes")),)
    def topology(self, params):
        return Wired()
    async def run(self, net, params, record):
        record.result("answer", 42, "")
"""


def test_a_trial_checks_them_and_its_report_shows_them_like_claims(tmp_path: Path) -> None:
    (tmp_path / "stating.py").write_text(CASE)
    done = run("run", "stating", "--path", tmp_path, "--repeat", "2", "--json",
               "--results", tmp_path / "results")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(c["verdict"], c["source"].split("/")[-1]) for c in found["claims"]] == [
        (HOLDS, "D0"), (HOLDS, "stating.py:11"), (FAILS, "stating.py:11"),
    ]  # fmt: skip
    assert "in 2 of 2 trials" in found["claims"][2]["measured"]
    bundle = Path(found["bundle"])
    assert "h1 does not reach h2" in (bundle / "report.html").read_text()
    events = [json.loads(line) for line in (bundle / "events.jsonl").read_text().splitlines()]
    assert [e["outcome"] for e in events if e["kind"] == "expectation"] == [HOLDS, FAILS] * 2
