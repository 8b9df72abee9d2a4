"""The trust gate's machine by playbook: snapshots in, commands out, no sockets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import ExperimentError
from testbed.mptcp.confinement import (
    Confinement,
    Create,
    Destroy,
    Guard,
    Path,
    Restore,
    Snapshot,
    State,
    Trust,
)
from testbed.mptcp.counters import Address, Subflow, TcpState
from testbed.mptcp.guard import ruleset

WIFI, LTE, SERVER = "10.1.0.2", "10.2.0.2", Address("10.9.0.2", 5000)
TRUST = Trust(local=frozenset({WIFI}))


def subflow(
    local: str, number: int = 1, *, state: TcpState = TcpState.ESTABLISHED, timeouts: int = 0
) -> Subflow:
    return Subflow(
        id=number,
        local=Address(local, 40000 + number),
        remote=SERVER,
        state=state,
        timeouts=timeouts,
        rto_s=0.2,
        rtt_s=0.02,
        min_rtt_s=0.02,
        mss=1448,
        cwnd=10,
        unacked=0,
        notsent_bytes=0,
        bytes_sent=0,
        bytes_acked=0,
        bytes_received=0,
        bytes_retransmitted=0,
        delivery_rate_bps=0.0,
    )


def see(*subflows: Subflow, written: int = 0, acked: int = 0, time_s: float = 0.0) -> Snapshot:
    return Snapshot(time_s=time_s, write_seq=written, snd_una=acked, subflows=subflows)


W, L = subflow(WIFI), subflow(LTE, 2)


def confined() -> Confinement:
    gate = Confinement(TRUST)
    gate.begin(see(W, L))
    gate.observe(see(W))
    assert gate.state is State.CONFINED
    return gate


def test_a_period_from_begin_to_restored() -> None:
    gate = Confinement(TRUST)
    assert gate.begin(see(W, L)) == [Destroy(L), Guard(True)]
    assert gate.state is State.CLOSING
    assert gate.observe(see(W)) == []
    assert gate.state is State.CONFINED
    assert gate.end(see(W, written=500, acked=100)) == []
    assert gate.state is State.DRAINING
    assert gate.observe(see(W, written=900, acked=499)) == []
    assert gate.observe(see(W, written=900, acked=500)) == [Guard(False), Restore(Path.of(L))]
    assert gate.state is State.OPEN
    assert gate.observe(see(W, L)) == []


def test_not_confined_while_an_untrusted_subflow_may_send() -> None:
    gate = Confinement(TRUST)
    gate.begin(see(W, L))
    for state in (TcpState.ESTABLISHED, TcpState.SYN_SENT, TcpState.CLOSE_WAIT, TcpState.SYN_RECV):
        lingering = subflow(LTE, 2, state=state)
        assert gate.observe(see(W, lingering)) == [Destroy(lingering)]
        assert gate.state is State.CLOSING
    gate.observe(see(W, subflow(LTE, 2, state=TcpState.FIN_WAIT1)))
    assert gate.state is State.CONFINED


def test_a_period_begins_while_the_last_one_drains() -> None:
    gate = confined()
    gate.end(see(W, written=500, acked=100))
    assert gate.begin(see(W, written=600, acked=200)) == [Guard(True)]
    assert gate.observe(see(W, written=600, acked=600)) == []
    assert gate.state is State.CONFINED
    gate.end(see(W, written=700, acked=600))
    assert gate.observe(see(W, written=700, acked=600)) == []
    assert gate.observe(see(W, written=700, acked=700)) == [Guard(False), Restore(Path.of(L))]


def test_an_intruder_is_destroyed_before_the_guard_is_lowered() -> None:
    gate = confined()
    assert gate.end(see(W, L, written=500, acked=500)) == [Destroy(L)]
    assert gate.state is State.DRAINING
    assert gate.intruders == 1
    assert gate.observe(see(W, written=500, acked=500)) == [Guard(False), Restore(Path.of(L))]


def test_a_stalled_trusted_path_is_tried_again_and_the_old_subflow_dropped() -> None:
    gate = confined()
    stalled = subflow(WIFI, 1, timeouts=2)
    assert gate.observe(see(subflow(WIFI, 1, timeouts=1), time_s=1.0)) == []
    assert gate.observe(see(stalled, time_s=2.0)) == [Create(Path.of(W))]
    trying = subflow(WIFI, 3, state=TcpState.SYN_SENT)
    assert gate.observe(see(stalled, trying, time_s=2.4)) == []
    assert gate.observe(see(stalled, trying, time_s=2.5)) == [Destroy(trying), Create(Path.of(W))]
    fresh = subflow(WIFI, 4)
    assert gate.observe(see(stalled, fresh, time_s=2.6)) == [Destroy(stalled)]
    assert gate.observe(see(fresh, time_s=2.7)) == []


def test_without_any_trusted_path_it_waits_and_tries_the_paths_it_was_given() -> None:
    path = Path(WIFI, SERVER)
    gate = Confinement(TRUST, (path,))
    gate.begin(see(L))
    assert gate.observe(see()) == [Create(path)]
    assert gate.state is State.CONFINED
    gate = Confinement(TRUST, (path,), repair=False)
    gate.begin(see(L))
    assert gate.observe(see()) == []


def test_a_path_that_is_not_named_is_not_trusted() -> None:
    assert not TRUST.allows("192.0.2.1", SERVER.ip)
    assert TRUST.allows(WIFI, "192.0.2.1")
    both = Trust(local=frozenset({SERVER.ip}), remote=frozenset({WIFI}))
    assert both.allows(SERVER.ip, WIFI)
    assert not both.allows(SERVER.ip, LTE)
    assert not both.allows("192.0.2.1", WIFI)


def test_begin_and_end_take_turns() -> None:
    gate = Confinement(TRUST)
    with pytest.raises(ExperimentError, match="begin one first"):
        gate.end(see(W))
    with pytest.raises(ExperimentError, match="end it first"):
        confined().begin(see(W))


@given(st.integers(0, (1 << 64) - 1), st.integers(1, 1 << 40))
def test_sequence_numbers_wrap(start: int, size: int) -> None:
    mark = (start + size) % (1 << 64)
    gate = confined()
    gate.end(see(W, written=mark, acked=start))
    assert gate.state is State.DRAINING
    gate.observe(see(W, written=mark, acked=(mark - 1) % (1 << 64)))
    assert gate.state is State.DRAINING
    gate.observe(see(W, written=mark, acked=mark))
    assert gate.state is State.OPEN


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "end", "look"]),
            st.booleans(),  # does an untrusted subflow exist?
            st.integers(0, 3000),  # bytes written since
            st.floats(0, 1),  # share of the unacknowledged bytes that is acknowledged
        ),
        max_size=60,
    )
)
def test_the_guard_is_up_whenever_sensitive_bytes_are_under_way(
    steps: list[tuple[str, bool, int, float]],
) -> None:
    """Whatever happens in whatever order: open means that no sensitive byte is unacknowledged."""
    gate, written, acked, secret_end, guarded = Confinement(TRUST), 0, 0, 0, False
    for action, untrusted, wrote, share in steps:
        written += wrote
        if gate.state is State.CONFINED:
            secret_end = written
        acked += int((written - acked) * share)
        now = see(*((W, L) if untrusted else (W,)), written=written, acked=acked)
        allowed = {
            "begin": gate.state is not State.CONFINED,
            "end": gate.state in (State.CONFINED, State.CLOSING),
        }
        calls = {"begin": gate.begin, "end": gate.end}
        call = calls[action] if allowed.get(action) else gate.observe
        for command in call(now):
            if isinstance(command, Guard):
                guarded = command.raised
        if gate.state is State.OPEN:
            assert acked >= secret_end
        assert guarded == (gate.state is not State.OPEN)


def test_rules_of_the_guard() -> None:
    text = ruleset(Trust(remote=frozenset({WIFI, "fd01::2"})), 0x5E, "t")
    assert "create table inet t\n" in text
    assert "meta nfproto ipv4 ip daddr != { 10.1.0.2 } meta mark 0x5e" in text
    assert "meta nfproto ipv6 ip6 daddr != { fd01::2 } meta mark 0x5e" in text
    assert "saddr" not in text
    only4 = ruleset(TRUST, 1, "t")
    assert "    meta nfproto ipv6 meta mark 0x1" in only4
