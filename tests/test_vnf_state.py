"""State of functions: packed, compared, and taken and put back in real tables."""

from __future__ import annotations

import ipaddress
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import ExperimentError, TestbedError
from testbed.kernel import NetworkNamespace
from testbed.kernel.conntrack import ConntrackTable, Entry, Flow
from testbed.kernel.nftables import Nftables
from testbed.kernel.set_elements import Elements, Sets
from testbed.vnf import state_values
from testbed.vnf.rig import CLIENT, OUTSIDE, SERVER
from testbed.vnf.state import CLIENTS, Access, Change, FunctionState

live = pytest.mark.live

PROGRAM = """
table ip box {
    counter packets_in { }
    quota monthly { over 25 mbytes ; }
    set blocked { type ipv4_addr . inet_service; }
    set clients { type ipv4_addr; flags dynamic,timeout; timeout 1h; }
    set counted { type ipv4_addr; flags dynamic; counter; }
    set ranges { type ipv4_addr; flags interval; }
    map verdicts { type ipv4_addr : verdict; flags timeout; }
    map accounts { type ipv4_addr : counter; }
    limit slow { rate 10 mbytes/second burst 5 mbytes ; }
    chain fresh { counter accept; }
    chain forward {
        type filter hook forward priority 0; policy drop;
        counter name packets_in
        ip saddr . tcp dport @blocked drop
        tcp dport { 80, 443 } counter accept
        quota name "monthly" drop
        quota over 10 mbytes drop
        limit name "slow" accept
        limit rate over 9 mbytes/second burst 6 mbytes drop
        counter name ip saddr map @accounts
        ip saddr vmap @verdicts
        meter flows { ip saddr limit rate 10/second } jump fresh
        comment "10 mbytes are no quota"
    }
}
"""
FILLED = """
delete counter ip box packets_in
add counter ip box packets_in { packets 11 bytes 1234 ; }
delete quota ip box monthly
add quota ip box monthly { over 25 mbytes used 3 kbytes ; }
add counter ip box alice { packets 5 bytes 55 ; }
add element ip box blocked { 10.0.0.1 . 80, 10.0.0.2 . 443 }
add element ip box clients { 10.0.0.3 timeout 30m expires 20m }
add element ip box counted { 10.0.0.5 counter packets 7 bytes 700 }
add element ip box ranges { 10.1.0.0/16, 10.3.0.1-10.3.0.7 }
add element ip box verdicts { 10.0.0.6 timeout 40m : jump fresh }
add element ip box accounts { 10.0.0.7 : "alice" }
"""
RULES_FIRST = "flush chain ip box forward\nflush map ip box accounts\n"


class Box:
    """A program in a namespace."""

    tables = ("ip box",)

    def __init__(self, text: str = PROGRAM) -> None:
        self.namespace = NetworkNamespace.create()
        self.nft = Nftables(self.namespace)
        self.nft.run(text.replace("        comment", "        # comment"))

    def fill(self) -> None:
        rules = self.nft.listing("ip box")
        chain = rules[rules.index("\tchain forward") :]
        chain = chain.replace(
            "counter packets 0 bytes 0 accept", "counter packets 8 bytes 88 accept"
        )
        chain = chain.replace("quota over 10 mbytes", "quota over 10 mbytes used 9 bytes")
        self.nft.run(RULES_FIRST + FILLED + "table ip box {\n" + chain)

    def text(self) -> set[str]:
        """What is in the table, without times that run down and without an order."""
        listed = self.nft.run("list table ip box")
        return set(re.sub(r"expires \w+", "expires", listed).split("\n\n"))

    def expires(self, element: str) -> float:
        found = re.search(
            rf"{element} timeout \w+ expires (\w+)", self.nft.run("list table ip box")
        )
        assert found, element
        units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
        return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)(ms|h|m|s)", found[1]))


@live
def test_everything_in_tables_is_taken_and_put_back() -> None:
    source, target = Box(), Box()
    source.fill()
    target.nft.run("add counter ip box alice")
    assert source.text() != target.text()
    assert FunctionState.take(source).put(target) == []
    assert source.text() == target.text()
    assert "used 3 kbytes" in "".join(target.text())
    assert "counter packets 8 bytes 88 accept" in "".join(target.text())
    assert source.expires("10.0.0.3") == pytest.approx(target.expires("10.0.0.3"), abs=30)
    # and once more, onto what is there
    assert FunctionState.take(source).put(target) == []
    assert source.text() == target.text()


@live
def test_elements_go_on_ending_where_they_are_put() -> None:
    source, target = Box(), Box()
    source.fill()
    source.nft.run("add element ip box clients { 10.0.0.4 timeout 3s }")
    state = FunctionState.take(source)
    (clients,) = (s for t in state.tables.values() for n, s in t.sets.items() if n == "clients")
    assert len(clients) == 2
    deadline = time.monotonic() + 30
    while "10.0.0.4" in source.nft.run("list set ip box clients"):
        assert time.monotonic() < deadline
    target.nft.run("add counter ip box alice")
    state.put(target)
    assert "10.0.0.3" in target.nft.run("list set ip box clients")
    assert "10.0.0.4" not in target.nft.run("list set ip box clients")


@live
def test_a_change_tells_of_sets_that_changed_and_no_others() -> None:
    box = Box()
    box.fill()
    with Access(box) as access:
        before = access.take()
        assert len(access.take().since(before)) == 0
        box.nft.run("add element ip box clients { 10.0.0.9 }")
        change = Change.decode(access.take().since(before, values=False).encode())
    assert {t: (s.values, list(s.sets)) for t, s in change.tables.items()} == {
        "ip box": (None, ["clients"])
    }


@live
def test_what_is_known_of_clients_moves_without_connections() -> None:
    source, target = Box(), Box()
    source.fill()
    ConntrackTable(source.namespace).insert([UDP])
    target.nft.run("add counter ip box alice; add element ip box blocked { 10.9.9.9 . 1 }")
    FunctionState.take(source, CLIENTS).put(target)
    assert "10.0.0.3" in "".join(target.text())
    assert "10.9.9.9" in "".join(target.text())  # a set that commands fill is the target's own
    assert len(ConntrackTable(target.namespace)) == 0


@live
def test_another_program_is_refused_and_left_as_it_is() -> None:
    source, target = Box(), Box(PROGRAM.replace("quota over 10 mbytes drop", "accept"))
    source.fill()
    before = target.text()
    with pytest.raises(
        ExperimentError, match=r"table ip box: chain forward counts otherwise.*same program"
    ):
        FunctionState.take(source).put(target)
    assert target.text() == before


@live
def test_thousands_of_elements_move() -> None:
    source, target = Box(), Box()
    hosts = [str(ipaddress.ip_address("10.4.0.0") + n) for n in range(5000)]
    source.nft.run(f"add element ip box clients {{ {', '.join(hosts)} }}")
    change = Change.decode(FunctionState.take(source).since(FunctionState.empty()).encode())
    with Access(target) as access:
        access.put(change)
    with_them = Sets(target.namespace, "ip", "box").elements("clients", time.monotonic())
    assert len(with_them) == 5000
    assert source.text() == target.text()


UDP = Entry(
    protocol=17,
    original=Flow(CLIENT, SERVER, 5000, 53),
    reply=Flow(SERVER, OUTSIDE, 53, 6000),
    timeout_s=100,
)


@live
def test_a_timeout_that_a_packet_renewed_is_a_change_in_time() -> None:
    """The copy must not end before the next one, however long rounds take."""
    box = Box()
    table = ConntrackTable(box.namespace)
    table.insert([UDP])
    with Access(box) as access:
        state = access.take()
        later = FunctionState(state.connections, state.tables, state.time_s + 40)
        assert len(later.since(state).connections) == 0
        later = FunctionState(state.connections, state.tables, state.time_s + 60)
        assert len(later.since(state).connections.changed) == 1


# -- codecs --------------------------------------------------------------------------------------

counts = st.integers(0, 2**48)


@given(st.lists(st.tuples(st.booleans(), counts, counts), min_size=1, max_size=8))
@settings(deadline=None)
def test_values_are_read_where_they_were_written(values: list[tuple[bool, int, int]]) -> None:
    rules = "".join(
        "\t\tcounter packets 0 bytes 0\n" if counter else "\t\tquota over 5 mbytes drop\n"
        for counter, _, _ in values
    )
    wanted = tuple(
        f"packets {first} bytes {second}" if counter else f"used {first} kbytes"
        for counter, first, second in values
    )
    listing = f"table ip t {{\n\tchain c {{\n{rules}\t}}\n}}\n"
    written = state_values.write(listing, {"chain c": wanted}, table="ip t")
    assert state_values.read(written["chain c"]) == {"chain c": wanted}


@pytest.mark.parametrize(
    "text",
    [
        "limit rate 10 mbytes/second burst 5 mbytes",
        "limit rate over 10 mbytes/second",
        "rate over 125000 bytes/second burst 3000 bytes",
    ],
)
def test_rates_are_no_quotas(text: str) -> None:
    assert state_values.read(f"\tchain c {{\n\t\t{text}\n\t}}\n") == {}


@given(st.binary(max_size=80))
@settings(deadline=None)
def test_what_is_no_state_is_refused(data: bytes) -> None:
    with pytest.raises(TestbedError, match="no encoded state"):
        Change.decode(data)


def test_an_empty_change_is_nothing() -> None:
    empty = FunctionState.empty()
    change = Change.decode(empty.since(FunctionState.empty()).encode())
    assert len(change) == 0
    assert Elements((), 0.0).same(Elements((), 5.0))
