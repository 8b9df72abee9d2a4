"""The codec against real traffic: the kernel's options, read by us and by tshark, agree; and the
keys seen on the wire give the tokens, HMACs and sequence numbers that the kernel sent.
"""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TypeVar

import pytest
from mptcp_lab import LTE, SERVER, WIFI, Connection, Lab, Segment, segments, until

from testbed.mptcp import configure, keys, sockets
from testbed.mptcp.events import EventKind
from testbed.mptcp.options import (
    AddAddr,
    Dss,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpPrio,
    MpTcprst,
    Option,
    RemoveAddr,
    dss_checksum,
    find,
)

_NAMES = """
subtype version backup.flag checksumreq.flags nomoresubflows.flag sha256.flag sendkey recvkey
recvtok sendrand sendtrunchmac sendhmac addrid datafin.flag dseqn8.flag dseqnpresent.flag
dataack8.flag dataackpresent.flag rawdataack rawdataseqno subflowseqno datalvllen checksum
echo ipv4 ipv6 port addaddrtrunchmac rst_reason
"""
FIELDS = _NAMES.split()
T = TypeVar("T", bound=Option)


def tshark(capture: Path) -> list[dict[str, list[str]]]:
    """What tshark reads from the MPTCP options of each TCP segment."""
    argv = ["tshark", "-n", "-r", str(capture), "-Y", "ip && tcp", "-T", "fields"]
    argv += ["-E", "separator=/t"]
    argv += chain.from_iterable(("-e", f"tcp.options.mptcp.{name}") for name in FIELDS)
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    rows = (line.split("\t") for line in done.stdout.splitlines())
    return [
        {name: cell.split(",") for name, cell in zip(FIELDS, row, strict=True) if cell}
        for row in rows
    ]


def described(option: Option) -> Iterator[tuple[str, object]]:
    """Our reading of an option in tshark's words, in the order of its fields."""
    yield "subtype", option.subtype
    match option:
        case MpCapable():
            yield "version", option.version
            yield "checksumreq.flags", option.checksum_required
            yield "nomoresubflows.flag", option.deny_join_initial
            yield "sha256.flag", option.flags & 1
            yield "sendkey", option.sender_key
            yield "recvkey", option.receiver_key
            yield "datalvllen", option.data_length
            yield "checksum", option.checksum
        case MpJoinSyn():
            yield "backup.flag", option.backup
            yield "addrid", option.address_id
            yield "recvtok", option.token
            yield "sendrand", option.nonce
        case MpJoinSynAck():
            yield "backup.flag", option.backup
            yield "addrid", option.address_id
            yield "sendtrunchmac", option.hmac
            yield "sendrand", option.nonce
        case MpJoinAck():
            yield "sendhmac", option.hmac.hex()
        case Dss():
            yield "datafin.flag", option.data_fin
            yield "dseqn8.flag", option.wide_dsn
            yield "dseqnpresent.flag", option.dsn is not None
            yield "dataack8.flag", option.wide_ack
            yield "dataackpresent.flag", option.data_ack is not None
            yield "rawdataack", option.data_ack
            yield "rawdataseqno", option.dsn
            yield "subflowseqno", option.ssn
            yield "datalvllen", option.length
            # tshark 4.0 does not export a mapping's checksum: see `check_checksums`
        case AddAddr():
            yield "echo", option.echo
            yield "addrid", option.address_id
            yield "ipv6" if ":" in option.address else "ipv4", option.address
            yield "port", option.port
            yield "addaddrtrunchmac", option.hmac
        case RemoveAddr():
            yield from (("addrid", number) for number in option.address_ids)
        case MpPrio():
            yield "backup.flag", option.backup
        case MpFastclose():
            yield "recvkey", option.receiver_key
        case MpTcprst():
            yield "rst_reason", option.reason


def reading(segment: Segment) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    for name, value in chain.from_iterable(map(described, find(segment.options))):
        if value is not None:
            found.setdefault(name, []).append(value)
    return found


def same(ours: object, theirs: str) -> bool:
    return ours == theirs if isinstance(ours, str) else int(ours) == int(theirs, 0)  # type: ignore[call-overload]


def disagreements(capture: Path) -> list[tuple[dict[str, list[object]], dict[str, list[str]]]]:
    pairs = list(zip(map(reading, segments(capture)), tshark(capture), strict=True))
    return [
        (ours, theirs)
        for ours, theirs in pairs
        if ours.keys() != theirs.keys()
        or any(
            len(ours[name]) != len(theirs[name]) or not all(map(same, ours[name], theirs[name]))
            for name in ours
        )
    ]


def options_of(capture: Path) -> list[tuple[str, Option]]:
    return [(s.source, option) for s in segments(capture) for option in find(s.options)]


def only(kind: type[T], options: list[tuple[str, Option]]) -> list[tuple[str, T]]:
    return [(source, option) for source, option in options if isinstance(option, kind)]


def converse(connection: Connection) -> None:
    """Have the kernel send every option it can be made to send."""
    client, server = connection.client, connection.server
    token, peer_token = sockets.info(client).token, sockets.info(server).token
    for sock in (client, server):
        sock.sendall(bytes(20_000))
    assert len(server.recv(20_000, socket.MSG_WAITALL)) == 20_000
    assert len(client.recv(20_000, socket.MSG_WAITALL)) == 20_000
    for word in (b"four", b"seven77"):
        client.sendall(word)
        assert server.recv(len(word), socket.MSG_WAITALL) == word
    manager = connection.server_manager
    heard = connection.client_events
    manager.announce(peer_token, "10.9.0.2", 7, port=5001)
    heard.wait(EventKind.ANNOUNCED)
    manager.announce(peer_token, "fd09::2", 8)
    heard.wait(EventKind.ANNOUNCED)
    manager.remove(peer_token, 7)
    heard.wait(EventKind.REMOVED)
    lte = sockets.subflows(client)[1]
    connection.client_manager.set_backup(token, lte.local, lte.remote, backup=True)
    connection.server_events.wait(EventKind.SUB_PRIORITY, lambda event: event.backup is True)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()  # MP_FASTCLOSE
    with pytest.raises(ConnectionResetError):
        server.recv(1)


@pytest.mark.live
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("checksums", [False, True])
def test_kernel_codec_and_tshark_agree(tmp_path: Path, checksums: bool) -> None:
    wifi, lte = tmp_path / "wifi.pcap", tmp_path / "lte.pcap"
    with Lab() as lab:
        for node in (lab.client, lab.server):
            configure.configure(node, checksums=checksums)
        with (
            lab.capture(wifi, node=lab.client, name="wifi"),
            lab.capture(lte, node=lab.client, name="lte"),
            Connection(lab) as connection,
        ):
            converse(connection)
            until(lambda: not established(lab), "closed")
    for capture in (wifi, lte):
        assert disagreements(capture) == []
        for segment in segments(capture):
            for option in find(segment.options):
                assert option.build() in segment.options
    seen = {type(option) for _source, option in options_of(wifi) + options_of(lte)}
    kinds = {MpCapable, MpJoinSyn, MpJoinSynAck, MpJoinAck, Dss, AddAddr, RemoveAddr}
    kinds |= {MpPrio, MpFastclose}
    assert seen >= kinds
    assert MpFail not in seen
    mappings = [o for _s, o in only(Dss, options_of(wifi)) if o.length]
    assert all((o.checksum is not None) == checksums for o in mappings)
    assert (check_checksums(wifi) + check_checksums(lte) > 0) == checksums
    check_keys(options_of(wifi), options_of(lte))


def check_checksums(capture: Path) -> int:
    """How many checksums were right, of mappings that one segment holds whole."""
    count = 0
    for segment in segments(capture):
        for option in find(segment.options):
            if not isinstance(option, Dss) or option.checksum is None or not option.wide_dsn:
                continue
            assert option.dsn is not None
            assert option.ssn is not None
            if option.length == len(segment.payload):
                assert dss_checksum(option.dsn, option.ssn, segment.payload) == option.checksum
                count += 1
    return count


def established(lab: Lab) -> bool:
    with lab.server:
        text = Path("/proc/thread-self/net/tcp").read_text()
    return any(line.split()[3] == "01" for line in text.splitlines()[1:])


def check_keys(wifi: list[tuple[str, Option]], lte: list[tuple[str, Option]]) -> None:
    """Tokens, HMACs and first sequence numbers follow from the keys of the handshake."""
    own, peer = next(
        (o.sender_key, o.receiver_key) for _s, o in only(MpCapable, wifi) if o.receiver_key
    )
    assert own is not None
    assert peer is not None
    (_s, syn), (_s, answer), (_s, last) = (
        only(MpJoinSyn, lte)[0],
        only(MpJoinSynAck, lte)[0],
        only(MpJoinAck, lte)[0],
    )
    assert syn.token == keys.token(peer)
    from_server = keys.join_hmac(peer, own, answer.nonce, syn.nonce)
    assert answer.hmac == keys.synack_hmac(from_server)
    assert last.hmac == keys.ack_hmac(keys.join_hmac(own, peer, syn.nonce, answer.nonce))
    announced = [o for source, o in only(AddAddr, wifi + lte) if source == SERVER and not o.echo]
    assert {o.port for o in announced} == {5001, None}
    for option in announced:
        assert option.hmac == keys.add_addr_hmac(
            peer,
            own,
            address_id=option.address_id,
            address=option.address,
            port=option.port or 0,
        )
    acks = {o.data_ack for source, o in only(Dss, wifi) if source == SERVER}
    # The idsn is the SYN's; the first byte of data, "x", takes the next number.
    assert {(keys.idsn(own) + 2) % (1 << bits) for bits in (32, 64)} & acks
    assert {source for source, _o in wifi} == {WIFI, SERVER}
    assert {source for source, _o in lte} == {LTE, SERVER}
