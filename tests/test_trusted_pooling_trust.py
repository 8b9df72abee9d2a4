"""The trust table and the connection manager's decisions: no network, no root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import ParameterError
from usecases.trusted_pooling import trust
from usecases.trusted_pooling.parameters import TrustedPoolingParameters
from usecases.trusted_pooling.policy import (
    Established,
    Event,
    GateOpened,
    GateShut,
    Interface,
    Join,
    NoTrustedPath,
    PathPolicy,
    PeerOpened,
    Purpose,
    SubflowLost,
    SubflowUp,
)
from usecases.trusted_pooling.usecase import TrustedPooling

KINDS = trust.load()
WIFI = Interface("wifi", "10.1.0.2", KINDS["wifi-open"])
LTE = Interface("lte", "10.2.0.2", KINDS["4g"])
BOTH = (WIFI, LTE)


def test_the_table_names_the_kinds_of_the_deliverable() -> None:
    trusted = {kind for kind, row in KINDS.items() if row.trusted}
    assert trusted == {"ethernet-802.1x", "vpn", "3g", "4g", "wifi-eap-ttls"}
    assert set(KINDS) - trusted == {"ethernet", "wifi-open", "wifi-wep", "wifi-wpa2"}


def test_every_row_is_explained() -> None:
    ((_heading, text),) = TrustedPooling().explain(TrustedPoolingParameters())
    for row in KINDS.values():
        assert row.title in text
        assert row.reason in text


ROW = '[[interface]]\nkind = "x"\ntitle = "X"\ntrusted = true\nreason = "because"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[interface]\n", "not TOML"),
        ("", "entries expected, found none"),
        ("colour = 1\n" + ROW, "expected, found colour"),
        (ROW + ROW, "line 6, entry 2: 'x' is there already"),
        (
            ROW.replace("true", '"yes"'),
            "line 1, entry 1: trusted = 'yes'; trusted is",
        ),
        (ROW.replace('"because"', '" "'), "entry 1: reason is empty"),
        (ROW.replace('"x"', '"Open WiFi"'), "lower-case"),
        (ROW.replace("reason", "why"), "unknown key 'why'"),
        (ROW.replace('title = "X"\n', ""), "'title' is missing"),
        ("# a comment\n\n" + ROW.replace("title", "name"), "line 3, entry 1: unknown key 'name'"),
    ],
)
def test_a_bad_table_is_refused_with_line_and_entry(text: str, complaint: str) -> None:
    with pytest.raises(ParameterError, match=r"t\.toml") as caught:
        trust.parse(text, source="t.toml")
    assert complaint in str(caught.value)


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(ParameterError, match="wifi-wpa2"):
        KINDS["wifi-wpa3"]


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(ROW)
    assert trust.load(str(path))["x"].trusted
    with pytest.raises(ParameterError, match="cannot read"):
        trust.load(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(("key", "kind"), [("wifi.kind", "vpn"), ("lte.kind", "wifi-wep")])
def test_an_experiment_without_contrast_is_refused(key: str, kind: str) -> None:
    params = TrustedPoolingParameters().changed({key: kind})
    with pytest.raises(ParameterError, match="nothing can be compared"):
        TrustedPooling().topology(params)


# -- decisions, as playbooks ---------------------------------------------------------------------


def play(policy: PathPolicy, *events: Event) -> list[list[str]]:
    """Names of the interfaces joined after each event."""
    return [[join.interface.name for join in policy.handle(event)] for event in events]


def test_other_traffic_starts_on_the_preferred_interface_and_joins_all() -> None:
    policy = PathPolicy(BOTH, Purpose.OTHER)
    assert policy.first is WIFI
    assert play(policy, Established(), SubflowUp(LTE.address)) == [["lte"], []]


def test_sensitive_traffic_never_joins_an_untrusted_interface() -> None:
    policy = PathPolicy(BOTH, Purpose.SENSITIVE)
    assert policy.first is LTE
    events = (Established(), SubflowLost(WIFI.address), PeerOpened(), GateOpened())
    assert play(policy, *events) == [[], [], [], []]


def test_a_mixed_connection_starts_trusted_so_that_its_keys_stay_secret() -> None:
    policy = PathPolicy(BOTH, Purpose.MIXED)
    assert policy.first is LTE
    assert play(policy, Established()) == [["wifi"]]


def test_while_a_gate_is_shut_untrusted_interfaces_stay_out() -> None:
    policy = PathPolicy(BOTH, Purpose.MIXED)
    assert play(policy, GateShut(), Established(), GateOpened()) == [[], [], ["wifi"]]


def test_what_the_peers_gate_closed_comes_back_when_the_peer_asks() -> None:
    policy = PathPolicy(BOTH, Purpose.MIXED)
    play(policy, Established(), SubflowUp(WIFI.address))
    assert play(policy, SubflowLost(WIFI.address), PeerOpened()) == [[], ["wifi"]]


def test_what_ones_own_gate_made_again_is_not_joined_twice() -> None:
    policy = PathPolicy(BOTH, Purpose.MIXED)
    events = (
        Established(), SubflowUp(WIFI.address), GateShut(), SubflowLost(WIFI.address),
        SubflowUp(WIFI.address), GateOpened(), PeerOpened(),
    )  # fmt: skip
    assert play(policy, *events) == [["wifi"], [], [], [], [], [], []]


def test_a_dead_interface_is_tried_a_few_times_only() -> None:
    policy = PathPolicy(BOTH, Purpose.OTHER)
    joins = play(policy, Established(), *[SubflowLost(LTE.address)] * 6)
    assert [name for names in joins for name in names] == ["lte"] * 3


def test_without_a_trusted_interface_nothing_sensitive_is_sent() -> None:
    for purpose in (Purpose.SENSITIVE, Purpose.MIXED):
        with pytest.raises(NoTrustedPath, match=r"wifi \(WiFi, open\)"):
            PathPolicy((WIFI,), purpose)
    assert PathPolicy((WIFI,), Purpose.OTHER).first is WIFI


EVENTS = st.one_of(
    st.sampled_from([Established(), PeerOpened(), GateShut(), GateOpened()]),
    st.sampled_from([WIFI.address, LTE.address]).map(SubflowUp),
    st.sampled_from([WIFI.address, LTE.address]).map(SubflowLost),
)


@given(st.sampled_from([Purpose.SENSITIVE, Purpose.MIXED]), st.lists(EVENTS, max_size=40))
def test_no_sequence_of_events_lets_sensitive_bytes_out(
    purpose: Purpose, events: Sequence[Event]
) -> None:
    policy, shut = PathPolicy(BOTH, purpose), False
    for event in events:
        shut = event == GateShut() or (shut and event != GateOpened())
        joins = policy.handle(event)
        if purpose is Purpose.SENSITIVE or shut:
            assert Join(WIFI) not in joins
