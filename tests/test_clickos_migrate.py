"""Variant migrate: how traffic is led through a function, and moves with live connections."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from traffic_lab import Program, serving

from testbed.kernel.nftables import Nftables
from testbed.network import Network
from testbed.run import Recorder, Trial
from testbed.vnf.compiler import compile_text
from traffic.many import PORT
from usecases.clickos_migration import functions, migrate
from usecases.clickos_migration.crowds import serve
from usecases.clickos_migration.migrate_report import FORGETFUL, FUNCTION, WIDE
from usecases.clickos_migration.movers import Forgetful, LightFunction, Site
from usecases.clickos_migration.parameters import ClickosMigrationParameters
from usecases.clickos_migration.steering import Steering
from usecases.clickos_migration.tally import Tally
from usecases.clickos_migration.wide import move_wide
from usecases.clickos_migration.wiring import subnet

live = pytest.mark.live
PARAMS = ClickosMigrationParameters().changed(
    {"migrate.before": 0.5, "migrate.after": 1, "migrate.patience": 3, "migrate.wide": 8,
     "migrate.rate": 200}
)  # fmt: skip
Told = dict[tuple[str, str], float]


def test_the_function_compiles_for_both_of_its_devices() -> None:
    assert set(compile_text(functions.CLICK).devices) == {"in", "out"}


def test_both_programs_look_for_the_same_words() -> None:
    assert functions.GREETING in functions.CLICK
    assert functions.GREETING.encode().hex() in functions.NFTABLES
    assert all(functions.PUBLIC in text for text in (functions.CLICK, functions.NFTABLES))


def trial(folder: Path, work: Callable[[Any, Recorder, Site], Awaitable[None]]) -> Told:
    """What `work` records on a network where a server runs, by source and metric."""
    record = Recorder(folder, Trial(variant="migrate", repeat=0, seed=1))
    with Network(PARAMS.paths.topology(clients=2)) as net:

        async def run() -> None:
            migrate.prepare([net[name] for name in ("server1", *migrate.CLIENTS)])
            await serve(net, record, mptcp=True, congestion="cubic")
            steering = Steering(net, migrate.CLIENTS)
            await work(net, record, Site(net, steering, [subnet(net, c) for c in migrate.CLIENTS]))

        asyncio.run(record.supervise(run()))
    record.close()
    rows = parquet.read_table(record.series_path).to_pylist()
    return {(row["source"], row["metric"]): row["value"] for row in rows if row["time_s"] is None}


@live
def test_connections_live_when_the_state_moves_and_die_when_it_does_not(tmp_path: Path) -> None:
    async def work(net: Any, record: Recorder, site: Site) -> None:
        for name, mover in ((FUNCTION, LightFunction(site)), (FORGETFUL, Forgetful(site))):
            await migrate.Attempt(net, PARAMS, record, name, 30).run(mover)

    told = trial(tmp_path, work)
    assert told[f"{FUNCTION}-30", "lost"] == 0
    assert told[f"{FORGETFUL}-30", "lost"] == told[f"{FORGETFUL}-30", "connections"] == 30
    assert told[f"{FUNCTION}-30", "films_before"] == told[f"{FUNCTION}-30", "films_after"] == 15
    assert told[f"{FORGETFUL}-30", "films_after"] == 0
    assert told[f"{FUNCTION}-30", "carried"] > told[f"{FUNCTION}-30", "payload"] > 0
    assert told[f"{FUNCTION}-30", "downtime"] < told[f"{FUNCTION}-30", "total"]
    assert told[f"{FORGETFUL}-30", "packets_lost"] > told[f"{FUNCTION}-30", "packets_lost"]
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [e["contender"] for e in events if e["kind"] == "moved"] == [
        "function-30",
        "forgetful-30",
    ]


@live
def test_connections_are_redirected_by_what_is_known_of_them_and_outlive_the_function(
    tmp_path: Path,
) -> None:
    async def work(net: Any, record: Recorder, site: Site) -> None:
        await move_wide(net, PARAMS, record, site)

    told = trial(tmp_path, work)
    assert told[WIDE, "redirected"] == told[WIDE, "connections"] == 8
    assert told[WIDE, "lost"] == 0
    assert (told[WIDE, "films_after"], told[WIDE, "others_after"]) == (4, 4)


@live
def test_traffic_is_led_through_one_data_centre_and_then_the_other() -> None:
    with Network(PARAMS.paths.topology(clients=2)) as net:
        steering = Steering(net, migrate.CLIENTS)
        client, server = net["client1"].IP(), net["server1"].IP()
        ways = {}
        for place in ("dc1", "dc2"):
            steering.switch(place)
            asked = f"ip route get {server} from {client} iif {net['m1'].intfNames()[0]}"
            ways[place] = net["m1"].cmd(asked).split(" dev ")[1].split()[0]
        for place, neighbour in (("dc1", "dc1"), ("dc2", "a1")):
            ((own, _theirs),) = net["m1"].connectionsTo(net[neighbour])
            assert ways[place] == own.name


@live
def test_a_tally_misses_what_was_lost_and_nothing_else() -> None:
    lossy = (
        "table inet cut { chain forward { type filter hook forward priority 0;"
        f" tcp dport {PORT} tcp flags & psh == psh numgen inc mod 20 == 0 counter drop; }}; }}"
    )
    with Network(PARAMS.paths.topology(clients=1)) as net:
        client, server = net["client1"], net["server1"]
        with (
            Tally([server, client], PORT) as tally,
            serving(server, "many", "server") as far,
            Nftables(net["m1"].netns) as cut,
            Program(client, "many", "client", server.IP(), "--connections", "5", "--duration", "1")
            as near,
        ):  # fmt: skip
            near.ready()
            cut.run(lossy)
            near.done()
            far.stop()
            deadline = time.monotonic() + 10
            while tally.missing() != dropped(cut) and time.monotonic() < deadline:
                time.sleep(0.05)  # the last acknowledgements are on their way
            assert tally.missing() == dropped(cut) > 0


def dropped(cut: Nftables) -> int:
    """Packets that the only rule of table cut has dropped."""
    (rule,) = (each["rule"] for each in cut.ask("list table inet cut") if "rule" in each)
    return next(int(part["counter"]["packets"]) for part in rule["expr"] if "counter" in part)
