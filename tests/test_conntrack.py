"""Connection tracking entries: packed, compared, and moved between real tables."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import KernelError, TestbedError
from testbed.kernel import NetworkNamespace, conntrack_entry
from testbed.kernel.conntrack import (
    ConntrackTable,
    Entries,
    Entry,
    EventKind,
    Flow,
    Status,
    Tcp,
    TcpState,
)
from testbed.kernel.nfnetlink import SUBSYSTEM_NFTABLES, NfNetlink
from testbed.kernel.nftables import Nftables

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58

ports = st.integers(1, 65535)


def addresses(version: int) -> st.SearchStrategy[str]:
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    return st.integers(1, 2 ** (32 if version == 4 else 128) - 2).map(lambda n: str(kind(n)))


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    version = draw(st.sampled_from([4, 6]))
    protocol = draw(st.sampled_from([TCP, UDP, ICMP if version == 4 else ICMP6]))
    flow = [draw(addresses(version)) for _ in range(4)]
    numbers = [draw(ports) for _ in range(4)]
    if protocol in (ICMP, ICMP6):
        numbers = [numbers[0], numbers[0], numbers[1], numbers[1]]
    return Entry(
        protocol=protocol,
        original=Flow(flow[0], flow[1], numbers[0], numbers[1]),
        reply=Flow(flow[2], flow[3], numbers[2], numbers[3]),
        timeout_s=draw(st.integers(0, 432000)),
        status=Status(draw(st.integers(0, 2**11 - 1))),
        tcp=Tcp(
            draw(st.sampled_from(TcpState)),
            (draw(st.integers(0, 14)), draw(st.integers(0, 14))),
            (draw(st.integers(0, 255)), draw(st.integers(0, 255))),
        )
        if protocol == TCP
        else None,
        mark=draw(st.integers(0, 2**32 - 1)),
        zone=draw(st.integers(0, 65535)),
        labels=draw(st.sampled_from([b"", bytes(range(16))])),
        helper=draw(st.sampled_from(["", "ftp", "sip-5060"])),
    )


tables = st.lists(entries(), max_size=12, unique_by=lambda e: (e.protocol, e.original, e.zone))


def key(entry: Entry) -> str:
    return repr(entry)


@given(tables)
@settings(max_examples=40, deadline=None)
def test_entries_survive_packing(written: list[Entry]) -> None:
    packed = conntrack_entry.of(written).encode()
    read = list(conntrack_entry.read(Entries.decode(packed)))
    assert sorted(read, key=key) == sorted(written, key=key)


@given(tables, tables)
@settings(max_examples=40, deadline=None)
def test_a_difference_leads_from_one_table_to_the_other(
    before: list[Entry], after: list[Entry]
) -> None:
    old, new = conntrack_entry.of(before), conntrack_entry.of(after)
    difference = new.since(old)
    reached = list(conntrack_entry.read(old.plus(difference)))
    assert sorted(reached, key=key) == sorted(after, key=key)
    assert len(new.since(new)) == 0


def test_a_timeout_that_runs_is_no_difference() -> None:
    flow = Flow("10.0.0.1", "10.0.0.2", 1, 2)
    earlier, later = (
        conntrack_entry.of(
            [Entry(protocol=UDP, original=flow, reply=flow.reversed(), timeout_s=seconds)]
        )
        for seconds in (30, 29)
    )
    assert len(later.since(earlier)) == 0


def test_many_alike_take_few_bytes() -> None:
    raw = conntrack_entry.of(many(1000))
    assert len(raw.encode()) < 20 * 1000


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_what_is_no_packing_is_refused(data: bytes) -> None:
    with pytest.raises(TestbedError, match="not encoded connections"):
        Entries.decode(data)


def many(count: int) -> list[Entry]:
    return [
        Entry(
            protocol=TCP,
            original=Flow(f"10.1.{n >> 8}.{n & 255}", "10.2.0.1", 10000 + n, 80),
            reply=Flow("10.2.0.1", "10.2.0.100", 80, 30000 + n),
            tcp=Tcp(),
        )
        for n in range(count)
    ]


def assorted() -> list[Entry]:
    """Every protocol, translated at the source, the destination, both and not at all."""
    found = []
    for protocol in (TCP, UDP, ICMP, ICMP6):
        four = protocol != ICMP6
        echo = protocol in (ICMP, ICMP6)
        client, service, outside, real = (
            ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
            if four
            else ("fd00::1", "fd00::2", "fd00::3", "fd00::4")
        )
        for number, (source, destination) in enumerate(
            ((client, service), (outside, service), (client, real), (outside, real))
        ):
            port = 1000 + number
            original = Flow(client, service, port, port if echo else 80)
            translated = port + 50 if source == outside else port
            reply = Flow(
                destination,
                source,
                translated if echo else (8080 if destination == real else 80),
                translated,
            )
            found.append(
                Entry(
                    protocol=protocol,
                    original=original,
                    reply=reply,
                    tcp=Tcp() if protocol == TCP else None,
                    mark=number,
                    zone=5 if number == 3 else 0,
                )
            )
    for entry in [e for e in found if e.protocol == TCP]:
        six = [
            Flow(
                f"fd00::{f.source[-1]}",
                f"fd00::{f.destination[-1]}",
                f.source_port,
                f.destination_port,
            )
            for f in (entry.original, entry.reply)
        ]
        found.append(
            Entry(protocol=TCP, original=six[0], reply=six[1], tcp=Tcp(TcpState.FIN_WAIT), mark=9)
        )
    return found


def told(entry: Entry) -> tuple[object, ...]:
    """What must be the same of an entry in two tables."""
    state = entry.tcp and (entry.tcp.state, entry.tcp.window_scales)
    status = entry.status & ~Status(1 << 7 | 1 << 8)
    return entry.protocol, entry.original, entry.reply, status, state, entry.mark, entry.zone


@pytest.mark.live
def test_entries_move_between_tables() -> None:
    first, second = (ConntrackTable(NetworkNamespace.create()) for _ in range(2))
    written = assorted()
    assert first.insert(written) == []
    taken = Entries.decode(first.dump().encode())
    assert second.insert(taken) == []
    ours, theirs = ({told(entry) for entry in table.read()} for table in (first, second))
    assert ours == theirs
    translated = {(e.original, e.reply): e.status for e in second.read()}
    for entry in written:
        status = translated[(entry.original, entry.reply)]
        by_source = (entry.reply.destination, entry.reply.destination_port) != (
            entry.original.source,
            entry.original.source_port,
        )
        assert bool(status & Status.SRC_NAT) == by_source, entry
        by_destination = entry.reply.source != entry.original.destination
        assert bool(status & Status.DST_NAT) == by_destination, entry


@pytest.mark.live
def test_labels_move_where_rules_look_at_them() -> None:
    tables = []
    for _place in range(2):
        namespace = NetworkNamespace.create()
        chain = "type filter hook prerouting priority 0; ct label 3 drop;"
        with Nftables(namespace) as nft:
            nft.run(f"table ip t {{ chain c {{ {chain} }}; }}")
        tables.append(ConntrackTable(namespace))
    labels = bytes([8, *[0] * 15])
    assert tables[0].insert([replace(many(1)[0], labels=labels)]) == []
    assert tables[1].insert(tables[0].dump()) == []
    assert [entry.labels for entry in tables[1].read()] == [labels]


@pytest.mark.live
def test_refusals_name_the_entry() -> None:
    table = ConntrackTable(NetworkNamespace.create())
    written = many(600)
    assert table.insert(written[300:301]) == []
    (refusal,) = table.insert(written)
    assert (refusal.place, refusal.reason) == (300, "File exists")
    assert len(table) == 600
    gone = table.delete(written[:400])
    assert gone == []
    missing = table.delete(written)
    assert [each.place for each in missing] == list(range(400))
    assert len(table) == 0


@pytest.mark.live
def test_a_dump_may_be_of_a_mark_a_zone_or_a_family() -> None:
    table = ConntrackTable(NetworkNamespace.create())
    table.insert(assorted())
    assert {e.mark for e in conntrack_entry.read(table.dump(mark=(2, 0xFF)))} == {2}
    six = list(conntrack_entry.read(table.dump(family=socket.AF_INET6)))
    assert six
    assert all(":" in entry.original.source for entry in six)
    table.flush()
    assert len(table.dump()) == 0


@pytest.mark.live
def test_events_tell_what_comes_and_goes() -> None:
    table = ConntrackTable(NetworkNamespace.create())
    events = table.events()
    written = many(3)
    table.insert(written)
    table.delete(written[1:2])
    seen = []
    while len(seen) < 4:
        seen += events.read(timeout_s=10)
    assert [event.kind for event in seen] == [EventKind.NEW] * 3 + [EventKind.DESTROY]
    assert seen[3].entry.original == written[1].original


@pytest.mark.live
def test_a_refused_transaction_names_its_part_and_leaves_nothing() -> None:
    netlink = NfNetlink(NetworkNamespace.create())
    family = struct.pack("=BBH", socket.AF_INET, 0, 0)
    name = struct.pack("=HH", 6, 1) + b"t\0\0\0"
    create = 0x400
    with pytest.raises(KernelError, match="nf_tables: second: "):
        netlink.transaction([(0, create, family + name, "first"), (5, create, family, "second")])
    assert netlink.dump(SUBSYSTEM_NFTABLES << 8 | 1, family, purpose="tables") == []
