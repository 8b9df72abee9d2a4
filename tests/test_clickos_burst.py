"""Variant burst: prices, the orchestrator's decisions, the compressing tunnel."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from traffic_lab import Program, serving

from testbed.mptcp.redirection.messages import Outcome
from testbed.network import Network
from testbed.run import Recorder, Trial
from topologies.star import Star
from traffic.exchange import Asker
from usecases.clickos_migration import burst, tunnel
from usecases.clickos_migration.burst_report import DEAR_NETWORK
from usecases.clickos_migration.crowds import serve
from usecases.clickos_migration.orchestrator import (
    Decision,
    Load,
    Orchestrator,
    Policy,
    Redirect,
    Release,
    Rent,
)
from usecases.clickos_migration.parameters import ClickosMigrationParameters
from usecases.clickos_migration.prices import Bill, Plan, Prices
from usecases.clickos_migration.ratio import ratio

live = pytest.mark.live
POLICY = Policy(capacity_mbps=8, full=0.9, target=0.75, hold_s=0.3)
DEAR_COMPUTE_PRICES = Prices(owned=1, rented=1.5, function=10)
DEAR_NETWORK_PRICES = Prices(owned=5, rented=7.5, function=0.5)


# -- prices --------------------------------------------------------------------------------------


def test_the_cheaper_plan_follows_the_prices() -> None:
    assert DEAR_COMPUTE_PRICES.choose(8, 2) is Plan.TRAFFIC
    assert DEAR_NETWORK_PRICES.choose(8, 2) is Plan.PROCESSING
    assert DEAR_NETWORK_PRICES.choose(8, 1) is Plan.TRAFFIC  # what cannot be compressed
    assert DEAR_NETWORK_PRICES.choose(0.1, 2) is Plan.TRAFFIC  # too little to pay functions for


@given(*(st.floats(0, 1e3) for _ in range(4)), st.floats(1, 20))
def test_no_plan_is_cheaper_than_the_one_chosen(
    owned: float, rented: float, function: float, rate: float, ratio: float
) -> None:
    prices = Prices(owned=owned, rented=rented, function=function)
    chosen = prices.rent(prices.choose(rate, ratio), rate, ratio)
    assert chosen == min(prices.rent(plan, rate, ratio) for plan in Plan)


def test_a_bill_is_the_sum_of_its_parts() -> None:
    bill = Bill(owned_mbps_s=80, carried_mbit=10, function_s=4)
    parts = bill.parts(DEAR_COMPUTE_PRICES)
    assert parts == {"own path": 80, "rented network": 15, "rented functions": 40}
    assert bill.cost(DEAR_COMPUTE_PRICES) == 135


# -- the orchestrator ----------------------------------------------------------------------------


class Crowd:
    """Connections that ask for a Mb/s each, over a path of 8 Mb/s, as an orchestrator sees it."""

    def __init__(self, prices: Prices = DEAR_COMPUTE_PRICES, *, each_mbps: float = 1.0) -> None:
        self.orchestrator = Orchestrator(POLICY, prices, ratio=2)
        self.each_mbps = each_mbps
        self.here: list[str] = []
        self.away: list[str] = []
        self.time_s = 0.0

    def pass_time(self, steps: int) -> list[tuple[float, Decision]]:
        """Measure every 100 ms; what was decided, and when.  Nothing is carried out."""
        made = []
        for _ in range(steps):
            self.time_s += 0.1
            rate = min(8.0, len(self.here) * self.each_mbps)
            load = Load(
                time_s=self.time_s,
                rate_mbps=rate,
                both_mbps=2 * rate,
                connections=tuple(self.here),
                away=len(self.away),
            )
            made += [(self.time_s, each) for each in self.orchestrator.measured(load)]
        return made

    def move(self, names: tuple[object, ...], *, failed: tuple[str, ...] = ()) -> None:
        """The redirections of `names` end, those of `failed` without success."""
        moved = [str(name) for name in names if name not in failed]
        self.here = [name for name in self.here if name not in moved]
        self.away += moved
        self.orchestrator.settled(moved, failed)


def base(count: int = 4) -> Crowd:
    crowd = Crowd()
    crowd.here = [f"base{n}" for n in range(count)]
    assert crowd.pass_time(10) == []
    return crowd


def test_nothing_is_done_while_there_is_room() -> None:
    assert base(7).pass_time(50) == []


def test_a_short_burst_is_waited_for() -> None:
    crowd = base()
    crowd.here += ["new"] * 8
    assert crowd.pass_time(2) == []
    crowd.here = crowd.here[:4]
    assert crowd.pass_time(20) == []


def test_a_flash_crowd_has_the_youngest_redirected_once() -> None:
    crowd = base()
    crowd.here += [f"new{n}" for n in range(8)]
    (when, rent), (_, redirect) = crowd.pass_time(20)
    assert when - 1.0 == pytest.approx(0.4)  # the first full measurement, and 0.3 s more
    assert isinstance(rent, Rent)
    assert (rent.plan, rent.rate_mbps) == (Plan.TRAFFIC, pytest.approx(12.0))
    assert rent.costs == {"traffic only": pytest.approx(28), "processing too": pytest.approx(39)}
    assert redirect == Redirect(tuple(f"new{n}" for n in range(2, 8)))


def test_dear_network_has_the_traffic_compressed() -> None:
    crowd = Crowd(DEAR_NETWORK_PRICES)
    crowd.here = [f"c{n}" for n in range(4)]
    crowd.pass_time(10)
    crowd.here += [f"new{n}" for n in range(8)]
    (_, rent), _ = crowd.pass_time(20)
    assert isinstance(rent, Rent)
    assert rent.plan is Plan.PROCESSING


def test_later_connections_are_redirected_on_arrival_and_the_failed_not_again() -> None:
    crowd = base()
    crowd.here += [f"new{n}" for n in range(8)]
    (_, _rent), (_, redirect) = crowd.pass_time(5)
    assert isinstance(redirect, Redirect)
    crowd.move(redirect.connections, failed=("new7",))
    ((_, more),) = crowd.pass_time(1)  # in place of the one that stays
    assert more == Redirect(("new1",))
    crowd.move(("new1",))
    assert crowd.pass_time(5) == []
    crowd.here += ["late"]
    assert crowd.pass_time(1)[0][1] == Redirect(("late",))


def test_capacity_is_given_back_when_its_last_connection_is_gone() -> None:
    crowd = base()
    crowd.here += [f"new{n}" for n in range(8)]
    (_, _rent), (_, redirect) = crowd.pass_time(5)
    assert isinstance(redirect, Redirect)
    crowd.move(redirect.connections)
    assert crowd.pass_time(10) == []
    crowd.away = []
    assert [each for _, each in crowd.pass_time(10)] == [Release()]
    assert crowd.orchestrator.plan is None


def test_a_path_full_from_the_start_is_relieved_step_by_step() -> None:
    crowd = Crowd()
    crowd.here = [f"c{n}" for n in range(16)]
    for _ in range(10):
        for _, decision in crowd.pass_time(5):
            if isinstance(decision, Redirect):
                crowd.move(decision.connections)
    assert 0 < len(crowd.here) < 8


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 12), st.integers(0, 3)), max_size=40))
def test_rent_and_release_alternate_and_no_connection_is_redirected_twice(
    loads: list[tuple[float, int, int]],
) -> None:
    orchestrator = Orchestrator(POLICY, DEAR_COMPUTE_PRICES, ratio=2)
    rented, moved = False, set()
    for step, (rate, count, away) in enumerate(loads):
        here = [n for n in range(count) if n not in moved]
        for decision in orchestrator.measured(
            Load(time_s=step * 0.2, rate_mbps=rate, both_mbps=rate, connections=here, away=away)
        ):
            if isinstance(decision, Redirect):
                assert rented
                assert not moved & set(decision.connections)
                assert set(decision.connections) <= set(here)
                moved |= set(decision.connections)
                orchestrator.settled(decision.connections, ())
            else:
                assert rented is isinstance(decision, Release)
                rented = not rented


# -- the tunnel ----------------------------------------------------------------------------------


@given(st.lists(st.binary(min_size=1, max_size=1500), max_size=40))
def test_packets_come_out_of_datagrams_as_they_went_in(packets: list[bytes]) -> None:
    datagrams = tunnel.pack(packets)
    assert [packet for each in datagrams for packet in tunnel.unpack(each)] == packets
    assert all(len(each) <= 1505 for each in datagrams)


def test_words_are_packed_into_fewer_bytes_and_noise_into_hardly_more() -> None:
    for text, most in ((True, 0.6), (False, 1.02)):
        asker = Asker(1, text=text)
        packets = [asker.ask(0.0, 1400) for _ in range(10)]
        carried = sum(map(len, tunnel.pack(packets)))
        assert carried < most * sum(map(len, packets))


@given(st.binary(max_size=200))
def test_datagrams_of_others_are_passed_over(data: bytes) -> None:
    packets = tunnel.unpack(data)
    assert packets == [] or data[:1] in (b"\0", b"\1")


class End(Program):
    """An end of the tunnel in a node; `inner` is an address of that node's own behind it."""

    def __init__(self, node: Any, other: Any, inner: str, there: str) -> None:
        node.cmd(f"ip addr add {inner}/32 dev lo")
        argv = ["sq0", "--local", node.IP(), "--remote", other.IP()]
        super().__init__(node, "tunnel", *argv, package="usecases.clickos_migration")
        self.ready()
        node.add_route(f"{there}/32", dev="sq0")


@live
@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_connections_live_through_the_tunnel_in_fewer_bytes(protocol: str) -> None:
    with Network(Star(2)) as net:
        h1, h2 = net["h1"], net["h2"]
        with (
            End(h1, h2, "192.0.2.1", "192.0.2.2") as near,
            End(h2, h1, "192.0.2.2", "192.0.2.1") as far,
            serving(h2, "many", "server", f"--{protocol}") as server,
            Program(
                h1, "many", "client", "192.0.2.2", "--bind", "192.0.2.1", f"--{protocol}",
                "--connections", "20", "--rate", "200", "--size", "4000", "--duration", "1",
                "--text",
            ) as client,
        ):  # fmt: skip
            results = client.done()
            server.stop()
            ends = [near.stop(), far.stop()]
    assert results["lost"] == 0
    assert results["exchanges"] >= 20  # each connection's, at the roll call
    for sender, receiver in (ends, ends[::-1]):
        # one end stops before the other, and what is under way then comes to nothing
        assert 0 < receiver["packets_out"] <= sender["packets_in"]
        assert sender["bytes_in"] > results["bytes_verified"]
        assert sender["bytes_out"] < 0.7 * sender["bytes_in"]
        assert sender["refused"] == 0


# -- the variant ---------------------------------------------------------------------------------


def test_a_ratio_is_what_the_tunnel_makes_of_packets() -> None:
    asker = Asker(1, text=True)
    packets = [asker.ask(0.0, 1400) for _ in range(8)]
    carried = sum(len(each) + 28 for start in (0, 4) for each in tunnel.pack(packets[start:][:4]))
    assert ratio(packets) == pytest.approx(8 * 1400 / carried)
    assert ratio([]) == 1


@live
def test_a_crowd_on_a_full_path_is_redirected_through_the_tunnel(tmp_path: Path) -> None:
    params = ClickosMigrationParameters().changed(
        # functions for nothing: how much has to be moved does not decide whether to compress it
        {"paths.direct_bw": 1, "burst.base": 2, "burst.waves": 6, "burst.dear_network.function": 0}
    )
    with Network(params.paths.topology(clients=2)) as net:
        told, events = asyncio.run(contend(net, params, DEAR_NETWORK, tmp_path))
        assert net["dc1"].cmd(f"ip route get {net['m2'].IP()}").split()[4] != "squeeze"
    assert (told["lost"], told["connections"]) == (0, 8)
    assert told["moved"] > 0
    assert told["tunnel_out"] < told["tunnel_in"]
    assert told["expected_ratio"] > 1.2
    (rent,) = (event for event in events if event["kind"] == "rents")
    assert rent["plan"] == Plan.PROCESSING.value


class UntilMoved(burst.Contender):
    """A contender whose crowd stays until what was redirected has used the tunnel."""

    async def _come_and_go(self) -> None:
        operator = self._operator
        assert operator is not None
        base = await self._arrive("base", 1, 2)
        await operator.learn()
        wave = await self._arrive("wave1", 2, 6)
        async with asyncio.timeout(60):
            while Outcome.REDIRECTED not in operator.outcomes or self._squeezed() < 20_000:
                await asyncio.sleep(0.1)
        await self._leave(*wave)
        await self._leave(*base)

    def _squeezed(self) -> int:
        """Bytes that the kernel has given to the tunnel at dc1."""
        (device,) = json.loads(self._net["dc1"].cmd("ip -j -s link show squeeze"))
        return int(device["stats64"]["tx"]["bytes"])


async def contend(
    net: Any, params: ClickosMigrationParameters, name: str, folder: Path
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Results and events of one contender."""
    record = Recorder(folder, Trial(variant="burst", repeat=0, seed=1))
    contender = UntilMoved(net, params, record, name)

    async def work() -> None:
        burst.prepare([net[each] for each in ("server1", "client1", "client2")])
        await serve(net, record, mptcp=True, congestion="cubic")
        await contender.run()
        contender.tell()

    await record.supervise(work())
    record.close()
    rows = parquet.read_table(record.series_path).to_pylist()
    told = {row["metric"]: row["value"] for row in rows if row["source"] == name}
    lines = (folder / "events.jsonl").read_text().splitlines()
    return told, [json.loads(line) for line in lines]
