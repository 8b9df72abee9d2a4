"""What is claimed of migrating machines, and how each claim is judged from the records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.run import Claim, MissingData, Verdict
from usecases.vm_migration.journey import (
    COLD,
    LEGS,
    LOAD,
    MIGRATE_MPTCP,
    MIGRATE_TCP,
    OUT,
    RESTART,
    VARIANTS,
    Leg,
)

if TYPE_CHECKING:
    import pandas

    from testbed.report.results import Results

MOST_GAP_S = 1.0
GAP_MBPS, GAP_MEMORY_MB = 100, 128  # what the bound on the application's gap is said for
_CONTINUOUS_S = 0.25  # of the programme: what one report may be off by
_LEAST_GAIN = 1.2


def legs(results: Results, variant: str) -> tuple[Leg, ...]:
    """The moves that a variant has made."""
    made = set(results.frame("stall", variant=variant).source)
    return tuple(leg for leg in LEGS if leg.name in made)


def first(results: Results, variant: str) -> Leg:
    """The move that all variants make."""
    return legs(results, variant)[0]


def _each(results: Results, metric: str, variant: str) -> pandas.Series[float]:
    """A metric's value in each move of a variant."""
    return results.values(metric, variant=variant)


def _mean(results: Results, metric: str, variant: str, leg: Leg) -> float:
    return results.mean(metric, variant=variant, source=leg.name).mean


def _moves(count: int) -> str:
    return f"{count} move{'s' if count != 1 else ''}"


# -- the picture goes on -------------------------------------------------------------------------


def judge_continuous(results: Results) -> Verdict:
    """Nothing of the programme skipped or repeated in any move, and it plays at the end."""
    missed, back, stall, playing = (
        _each(results, metric, MIGRATE_MPTCP)
        for metric in ("missed", "backwards", "stall", "playing")
    )
    worst = max(float(missed.max()), float(back.max()))
    measured = (
        f"{missed.sum():.1f} s missed in {_moves(len(missed))}, {int(playing.sum())} play on; "
        f"the picture stood still for {stall.median():.2f} s (median), {stall.max():.2f} s at most"
    )
    return Verdict.of(worst <= _CONTINUOUS_S and bool(playing.all()), measured)


def judge_survives(results: Results) -> Verdict:
    """Connections that outlive a move with Multipath TCP and with plain TCP."""
    kept, lost = (_each(results, "survived", each) for each in (MIGRATE_MPTCP, MIGRATE_TCP))
    measured = (
        f"Multipath TCP: {kept.sum():.0f} of {len(kept)} connections outlive their move; "
        f"plain TCP: {lost.sum():.0f} of {len(lost)}"
    )
    return Verdict.of(bool(kept.all()) and not lost.any(), measured)


def judge_gap(results: Results) -> Verdict:
    """Median time without a byte for the application, from the machine's stop on."""
    rate, memory = (float(results.parameter(key)) for key in ("peer.bw", "machine.memory"))
    if rate < GAP_MBPS or memory > GAP_MEMORY_MB:
        raise MissingData(f"it is said for {GAP_MBPS} Mb/s and {GAP_MEMORY_MB} MB")
    gap, down = (_each(results, metric, MIGRATE_MPTCP) for metric in ("gap", "downtime"))
    measured = (
        f"{gap.median():.2f} s (median of {_moves(len(gap))}), {gap.max():.2f} s at most; "
        f"of these the machine stood still for {down.median():.2f} s (median)"
    )
    return Verdict.of(float(gap.median()) <= MOST_GAP_S, measured)


# -- against what can be done without ------------------------------------------------------------


def judge_stall(results: Results) -> Verdict:
    """Standing pictures of all variants in the move that all make."""
    leg = first(results, MIGRATE_MPTCP)
    stalls = {variant: _mean(results, "stall", variant, leg) for variant in VARIANTS}
    ours = stalls.pop(MIGRATE_MPTCP)
    told = ", ".join(f"{variant} {stall:.1f} s" for variant, stall in stalls.items())
    return Verdict.of(ours < min(stalls.values()), f"{ours:.2f} s against {told}")


def judge_missed(results: Results) -> Verdict:
    """Seconds of the live programme that nobody saw, migrated and restarted."""
    leg = first(results, MIGRATE_MPTCP)
    ours, restarted = (_mean(results, "missed", each, leg) for each in (MIGRATE_MPTCP, RESTART))
    return Verdict.of(
        ours <= _CONTINUOUS_S < restarted,
        f"{ours:.1f} s missed when migrated, {restarted:.1f} s when restarted",
    )


def judge_cold(results: Results) -> Verdict:
    """Suspended and copied: the connection lives, but the machine stands still for all of it."""
    leg = first(results, COLD)
    down, ours = (_mean(results, "downtime", each, leg) for each in (COLD, MIGRATE_MPTCP))
    kept = _each(results, "survived", COLD)
    measured = (
        f"down for {ours:.2f} s instead of {down:.1f} s ({down / ours:.0f} times less); suspended, "
        f"{kept.sum():.0f} of {len(kept)} connections lived on as well"
    )
    return Verdict.of(ours < down, measured)


# -- what it is good for -------------------------------------------------------------------------


def judge_network(results: Results) -> Verdict:
    """The video's bitrate over the poor WiFi and, after the move, over LTE."""
    before, after = (
        _mean(results, f"bitrate_{when}", MIGRATE_MPTCP, OUT) for when in ("before", "after")
    )
    measured = f"{after / 1e3:,.0f} kb/s on the tablet's LTE, {before / 1e3:,.0f} on the WiFi"
    return Verdict.of(after > 0 and after >= _LEAST_GAIN * before, measured)


def judge_cpu(results: Results) -> Verdict:
    """Pictures a second that the decoder manages on the loaded phone and on the idle tablet."""
    before, after = (
        _mean(results, f"pictures_{when}", MIGRATE_MPTCP, LOAD) for when in ("before", "after")
    )
    shares = [
        results.mean(f"cpu_{when}", variant=MIGRATE_MPTCP, source=f"{LOAD.name}.{device}").mean
        for when, device in (("before", LOAD.source), ("after", LOAD.target))
    ]
    measured = (
        f"{after:.1f} pictures a second on the tablet, {before:.1f} on the loaded phone; "
        f"processors in use: phone {shares[0]:.0%} before, tablet {shares[1]:.0%} after"
    )
    return Verdict.of(after > 0 and after >= _LEAST_GAIN * before, measured)


def judge_display(results: Results) -> Verdict:
    """The size of the picture before and after the move to the tablet."""
    shown = results.events("display", variant=MIGRATE_MPTCP)
    shown = shown[shown.leg == first(results, MIGRATE_MPTCP).name]
    before, after = (shown[shown.when == when] for when in ("before", "after"))
    modes = [", ".join(sorted(set(each["mode"]))) for each in (before, after)]
    adapted = len(after) and (after["mode"] == after.offered).all()
    return Verdict.of(
        bool(adapted) and modes[0] != modes[1],
        f"{modes[0]} before, {modes[1]} after; the tablet's is {after.offered.iloc[0]}",
    )


def _claim(name: str, statement: str, judge: object, *variants: str) -> Claim:
    return Claim(name, statement, "D3.1 2.1", judge, variants=variants)  # type: ignore[arg-type]


CLAIMS = (
    _claim(
        "continuous",
        "A machine moves between devices in different subnets while its video plays, and the "
        "viewer's position is continuous: nothing is skipped, nothing is shown twice.",
        judge_continuous,
        MIGRATE_MPTCP,
    ),
    _claim(
        "survives",
        "Multipath TCP keeps the player's connection in every move, break before make; plain TCP "
        "loses it in every one.",
        judge_survives,
        MIGRATE_MPTCP,
    ),
    _claim(
        "gap",
        "At 100 Mb/s and 128 MB the application waits for its next byte for at most a second "
        "(median).",
        judge_gap,
        MIGRATE_MPTCP,
    ),
    _claim(
        "stall",
        "The picture stands still for less time than with plain TCP, than with suspending and "
        "resuming, and than with stopping and starting anew.",
        judge_stall,
        MIGRATE_MPTCP,
    ),
    _claim(
        "missed",
        "A viewer of the migrated machine misses nothing of the live programme; one of the "
        "restarted machine does.",
        judge_missed,
        MIGRATE_MPTCP,
    ),
    _claim(
        "cold",
        "Live migration keeps the machine down for less time than suspending it, copying its "
        "state and resuming it.",
        judge_cold,
        MIGRATE_MPTCP,
    ),
    _claim(
        "network",
        "Network liquidity: moved from a poor WiFi to LTE, the same player chooses a better "
        "picture.",
        judge_network,
        MIGRATE_MPTCP,
    ),
    _claim(
        "cpu",
        "CPU liquidity: moved from a loaded phone to an idle tablet, the same decoder shows more "
        "pictures a second.",
        judge_cpu,
        MIGRATE_MPTCP,
    ),
    _claim(
        "display",
        "The application takes the new device's form factor: its picture is as large as the "
        "tablet's display.",
        judge_display,
        MIGRATE_MPTCP,
    ),
)
