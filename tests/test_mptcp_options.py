"""The codec of MPTCP options and what is derived from keys: round trips, bad input, values."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.mptcp import keys
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
    OptionError,
    RemoveAddr,
    Unassigned,
    find,
    parse,
)

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))


@st.composite
def mp_capable(draw: st.DrawFn) -> MpCapable:
    count = draw(st.integers(0, 4))
    names = ("sender_key", "receiver_key", "data_length", "checksum")
    values = [draw(field) for field in (u64, u64, u16, u16)]
    fields = dict(list(zip(names, values, strict=True))[:count])
    return MpCapable(version=draw(st.integers(0, 15)), flags=draw(u8), **fields)


@st.composite
def dss(draw: st.DrawFn) -> Dss:
    wide_ack, wide_dsn = draw(st.booleans()), draw(st.booleans())
    ack = draw(st.none() | (u64 if wide_ack else u32))
    mapping = {}
    if draw(st.booleans()):
        dsn = draw(u64 if wide_dsn else u32)
        mapping = {
            "dsn": dsn,
            "ssn": draw(u32),
            "length": draw(u16),
            "checksum": draw(st.none() | u16),
        }
    fin = draw(st.booleans())
    return Dss(data_ack=ack, wide_ack=wide_ack, wide_dsn=wide_dsn, data_fin=fin, **mapping)


addresses = st.ip_addresses().map(str)
options: st.SearchStrategy[Option] = st.one_of(
    mp_capable(),
    st.builds(MpJoinSyn, token=u32, nonce=u32, address_id=u8, backup=st.booleans()),
    st.builds(MpJoinSynAck, hmac=u64, nonce=u32, address_id=u8, backup=st.booleans()),
    st.builds(MpJoinAck, st.binary(min_size=20, max_size=20)),
    dss(),
    st.builds(
        AddAddr, address_id=u8, address=addresses, port=st.none() | u16, hmac=st.none() | u64
    ),
    st.builds(RemoveAddr, st.lists(u8, min_size=1, max_size=37).map(tuple)),
    st.builds(MpPrio, st.booleans()),
    st.builds(MpFail, u64),
    st.builds(MpFastclose, u64),
    st.builds(MpTcprst, reason=u8, flags=st.integers(0, 15)),
    st.builds(Unassigned, st.integers(9, 15), st.integers(0, 15), st.binary(max_size=30)),
)


@given(options)
def test_what_is_built_parses_to_the_same(option: Option) -> None:
    data = option.build()
    assert data[0] == 30
    assert data[1] == len(data)
    assert parse(data) == option


@given(st.lists(options, max_size=4), st.integers(0, 3))
def test_options_are_found_among_others_and_padding(given: list[Option], padding: int) -> None:
    timestamps = bytes.fromhex("080a0000000100000002")
    header = timestamps + b"".join(b"\1" * padding + option.build() for option in given)
    assert find(header) == given
    assert find(header + b"\0" + b"\x1e") == given  # nothing after the end of the list counts


@given(st.binary(max_size=40))
def test_any_bytes_parse_or_raise_option_error(data: bytes) -> None:
    for function in (parse, find):
        try:
            function(data)
        except OptionError:
            continue


@given(st.integers(0, 8), st.binary(min_size=1, max_size=38))
def test_a_parsed_option_builds_the_bytes_it_came_from(subtype: int, rest: bytes) -> None:
    rest = bytes((subtype << 4 | rest[0] & 0xF,)) + rest[1:]
    data = bytes((30, 2 + len(rest))) + rest
    try:
        option = parse(data)
    except OptionError:
        return
    again = option.build()
    assert len(again) == len(data)
    assert parse(again) == option


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", "no bytes"),
        ("1e02", "not an MPTCP option"),
        ("1e0500", "says it has 5"),
        ("1e050100ff", "MP_CAPABLE of 5 bytes"),
        ("1e041000", "lengths are 12, 16 and 24"),
        ("1e042005", "DSS of 4 bytes"),
        ("1e0330", "ADD_ADDR of 3 bytes"),
        ("1e0340", "names no address"),
        ("1e045000", "MP_PRIO of 4 bytes"),
    ],
)
def test_malformed_options_are_named(data: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        parse(bytes.fromhex(data))


def test_tcp_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(OptionError, match="TCP option 8 at byte 1"):
        find(bytes.fromhex("01080a00"))
    with pytest.raises(OptionError, match="does not fit"):
        find(bytes.fromhex("0800"))


@pytest.mark.parametrize(
    "option",
    [
        MpCapable(receiver_key=1),
        MpCapable(version=16),
        Dss(dsn=1),
        Dss(checksum=1),
        Dss(data_ack=1 << 32),
        MpJoinAck(b"short"),
        RemoveAddr(()),
        MpTcprst(reason=1, flags=16),
        AddAddr(address_id=1, address="somewhere"),
        MpJoinSyn(token=1 << 32, nonce=0),
    ],
)
def test_values_no_option_can_carry_are_refused(option: Option) -> None:
    with pytest.raises(OptionError):
        option.build()


def test_tokens_and_hmacs_follow_the_rfc() -> None:
    a, b = 0x0001020304050607, 0x08090A0B0C0D0E0F
    digest = hashlib.sha256(bytes(range(8))).digest()
    assert keys.token(a) == int.from_bytes(digest[:4], "big")
    assert keys.idsn(a) == int.from_bytes(digest[24:], "big")
    # The two sides of a join sign with keys and nonces in opposite orders.
    assert keys.join_hmac(a, b, 1, 2) != keys.join_hmac(b, a, 2, 1)
    whole = keys.join_hmac(a, b, 1, 2)
    assert keys.ack_hmac(whole) == whole[:20]
    assert keys.synack_hmac(whole) == int.from_bytes(whole[:8], "big")
