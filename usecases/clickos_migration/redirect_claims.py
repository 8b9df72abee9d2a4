"""What is claimed of variant redirect, and how it is judged from the records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.run import Claim, Verdict
from testbed.run.statistics import estimate
from usecases.clickos_migration.contenders import NOTHING, REDIRECT, REROUTE, VARIANT
from usecases.clickos_migration.paths import DIRECT, OTHER

if TYPE_CHECKING:
    import pandas

    from testbed.report.results import Results
    from testbed.run.statistics import Estimate

_GAP_RTTS, _GAP_S = 2, 0.060  # added gap: at most so many round trips, and so much beside
_LEAST_GAIN = 1.2  # goodput over a baseline's: beyond what repeats differ by
_LEAST_MOVED = 0.25  # of the bytes after the redirection, on the path that was empty before


def values(results: Results, metric: str, source: str) -> pandas.Series[float]:
    """A contender's values, one a trial."""
    return results.values(metric, variant=VARIANT, source=source)


def per_connection(results: Results, metric: str, contender: str) -> pandas.Series[float]:
    """A metric of a contender's single connections, in all trials."""
    found = results.frame(metric, variant=VARIANT)
    return found.value[found.source.str.startswith(f"{contender}.")]


def gain(results: Results, baseline: str, metric: str = "goodput_after") -> Estimate:
    """Redirection's over a baseline's, trial by trial."""
    return estimate(list(values(results, metric, REDIRECT) / values(results, metric, baseline)))


def judge_survival(results: Results) -> Verdict:
    """Every redirection succeeded, and every connection came to its end with equal hashes."""
    connections = values(results, "connections", REDIRECT).sum()
    survivors = values(results, "survivors", REDIRECT).sum()
    wanted = values(results, "wanted", REDIRECT).sum()
    redirected = values(results, "redirected", REDIRECT).sum()
    return Verdict.of(
        connections > 0 and survivors == connections and redirected == wanted,
        f"{redirected:.0f} of {wanted:.0f} redirected, {survivors:.0f} of {connections:.0f} "
        "connections went on to their end",
    )


def judge_intact(results: Results) -> Verdict:
    """SHA-256 of what was sent and of what arrived, every transfer of every contender."""
    frame = results.frame("survivors", variant=VARIANT)
    intact, all_of_them = (
        frame.value.sum(),
        results.frame("connections", variant=VARIANT).value.sum(),
    )
    return Verdict.of(
        all_of_them > 0 and intact == all_of_them, f"{intact:.0f} of {all_of_them:.0f} transfers"
    )


def judge_gain(results: Results) -> Verdict:
    """Goodput of all connections together, after the operator acted."""
    gains = {name: gain(results, name).mean for name in (NOTHING, REROUTE)}
    rate = values(results, "goodput_after", REDIRECT).mean() / 1e6
    shown = ", ".join(f"{ratio:.2f} times that of {name}" for name, ratio in gains.items())
    return Verdict.of(min(gains.values()) >= _LEAST_GAIN, f"{rate:.1f} Mb/s: {shown}")


def judge_border(results: Results) -> Verdict:
    """Rerouting did use the other egress, and did not use the other wide-area path."""
    inside = values(results, "carried_after", f"{REROUTE}.m1-a2")
    outside = values(results, "carried_after", f"{REROUTE}.{OTHER}")
    all_of_it = values(results, "carried_after", f"{REROUTE}.{DIRECT}")
    gained = estimate(
        list(values(results, "goodput_after", REROUTE) / values(results, "goodput_after", NOTHING))
    )
    return Verdict.of(
        inside.min() > 0.1 * all_of_it.min() and outside.max() < 0.01 * all_of_it.min(),
        f"{inside.mean() / 1e6:.1f} MB took the other egress, {outside.mean() / 1e6:.2f} MB the "
        f"other wide-area path; goodput {gained.mean:.2f} times that of nothing",
    )


def moved_share(results: Results) -> pandas.Series[float]:
    """Share of the bytes after the redirection that the other path carried."""
    other, direct = (
        values(results, "carried_after", f"{REDIRECT}.{path}") for path in (OTHER, DIRECT)
    )
    return other / (other + direct)


def judge_moved(results: Results) -> Verdict:
    """Bytes on the other path, which carried nothing before."""
    share = moved_share(results).mean()
    before = values(results, "carried_before", f"{REDIRECT}.{OTHER}").mean()
    after = values(results, "carried_after", f"{REDIRECT}.{OTHER}").mean()
    return Verdict.of(
        share >= _LEAST_MOVED,
        f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after: {share:.0%} of all bytes",
    )


def gap_bound(rtt_s: float) -> float:
    """How long an added gap may be (s), where a round trip is so long."""
    return _GAP_RTTS * rtt_s + _GAP_S


def added_gaps(results: Results) -> pandas.Series[float]:
    """By how much longer the longest gap of each redirected connection was than without (s).

    Without: the connection in its place, in the same trial, for which nothing was done.
    """
    frame = results.frame("gap_after", variant=VARIANT)
    parts = frame.source.str.split(".", n=1, expand=True)
    keys = [frame.bundle, frame["repeat"], parts[1].rename("connection"), parts[0].rename("who")]
    table = frame.value.groupby(keys).first().unstack("who")
    return (table[REDIRECT] - table[NOTHING]).dropna()


def judge_gap(results: Results) -> Verdict:
    """Median over redirected connections."""
    rtt_s = values(results, "rtt", REDIRECT).mean()
    bound = gap_bound(rtt_s)
    added = added_gaps(results)
    joins = per_connection(results, "join", REDIRECT)
    return Verdict.of(
        float(added.median()) <= bound,
        f"median {added.median() * 1e3:.0f} ms (largest {added.max() * 1e3:.0f} ms, "
        f"{len(added)} connections), bound {bound * 1e3:.0f} ms; a round trip on the full path "
        f"took {rtt_s * 1e3:.0f} ms, to join {joins.median() * 1e3:.0f} ms",
    )


CLAIMS = tuple(
    Claim(name, statement, "D3.1 3.1", judge, variants=(VARIANT,))
    for name, statement, judge in (
        (
            "survive",
            "A middlebox redirects live connections over another wide-area path, and all survive.",
            judge_survival,
        ),
        (
            "intact",
            "What arrives is what was sent: the hashes of all transfers match.",
            judge_intact,
        ),
        (
            "goodput",
            "Redirecting some connections brings more goodput to all together than doing nothing "
            "and than rerouting inside the domain.",
            judge_gain,
        ),
        (
            "border",
            "Rerouting as OpenFlow and MPLS do ends at the domain's border: the wide-area path "
            "stays the same.",
            judge_border,
        ),
        (
            "moved",
            "Redirection moves bytes off the congested path onto one that was idle.",
            judge_moved,
        ),
        (
            "gap",
            "The application sees a gap of at most two round trips and 60 ms more than without.",
            judge_gap,
        ),
    )
)
