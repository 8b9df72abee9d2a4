"""What is claimed of trusted resource pooling, and how each claim is judged from the records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.run import Claim, Verdict
from usecases.trusted_pooling.plan import DOWNLOAD, OUTAGE, UPLOAD
from usecases.trusted_pooling.variants import LTE_ONLY, MPTCP, TRUSTED, WIFI_ONLY

if TYPE_CHECKING:
    from testbed.report.results import Results

TOLERANCE = 0.10  # of the other traffic's goodput: the "within 10%"
_SHORTEST_STALL = 0.9  # of the outage: what was in flight when the path died still arrives


def _total(results: Results, metric: str, variant: str) -> float:
    return float(results.values(metric, variant=variant).sum())


def _size(count: float) -> str:
    return f"{count / 1e3:,.1f} kB" if count >= 1e3 else f"{count:.0f} bytes"


def _trials(results: Results, variant: str) -> str:
    count = int((results.trials.variant == variant).sum())
    return f"{count} trial{'s' if count != 1 else ''}"


def judge_no_leak(results: Results) -> Verdict:
    """Not one sensitive byte on the WiFi, by either capture and by the marks in the payload."""
    sent = _total(results, "sensitive_sent", TRUSTED)
    held = _total(results, "leaked", TRUSTED)
    emitted = _total(results, "emitted", TRUSTED)
    doubtful = _total(results, "unaccounted", TRUSTED) + _total(results, "marked", TRUSTED)
    measured = f"{_size(max(held, emitted))} of {_size(sent)} in {_trials(results, TRUSTED)}"
    if doubtful:
        measured += f"; {_size(doubtful)} captured that cannot be accounted for"
    return Verdict.of(sent > 0 and held == emitted == doubtful == 0, measured)


def judge_goodput(results: Results) -> Verdict:
    """The video's goodput against plain MPTCP's, repeat by repeat."""
    ratio = results.ratio("other_goodput", variant=TRUSTED, baseline=MPTCP)
    rate = results.mean("other_goodput", variant=TRUSTED).mean / 1e6
    live = [
        f"{results.ratio(f'{phase}_goodput', variant=TRUSTED, baseline=MPTCP).mean:.0%} {phase}"
        for phase in (UPLOAD, DOWNLOAD)
    ]
    measured = (
        f"{ratio.mean:.1%} of plain MPTCP's ({rate:.1f} Mb/s, {ratio.count} pairs of trials); "
        f"inside one connection that keeps switching: {', '.join(live)}"
    )
    return Verdict.of(ratio.mean >= 1 - TOLERANCE, measured)


def judge_default_leaks(results: Results) -> Verdict:
    """What crosses the WiFi when nobody cares."""
    sent, held = (_total(results, each, MPTCP) for each in ("sensitive_sent", "leaked"))
    cookies, logins = (results.mean(f"{each}_stolen", variant=MPTCP).mean
                       for each in ("cookies", "logins"))  # fmt: skip
    share = held / sent if sent else 0.0
    return Verdict.of(
        held > 0,
        f"{_size(held)} of {_size(sent)} ({share:.0%}) in {_trials(results, MPTCP)}; the attacker "
        f"read {cookies:.3g} session cookies and {logins:.3g} logins a trial",
    )


def judge_pooling(results: Results) -> Verdict:
    """Both paths together against the better one alone."""
    single = max((LTE_ONLY, WIFI_ONLY), key=lambda v: results.mean("other_goodput", variant=v).mean)
    ratio = results.ratio("other_goodput", variant=MPTCP, baseline=single)
    links = float(results.parameter("wifi.bw")) + float(results.parameter("lte.bw"))
    share = results.mean("other_goodput", variant=MPTCP).mean / 1e6 / links
    return Verdict.of(
        ratio.mean > 1, f"{ratio.mean:.2f} times {single}; {share:.0%} of the sum of the links"
    )


def judge_waits(results: Results) -> Verdict:
    """A stall at least as long as the failure, and nothing on the WiFi meanwhile."""
    outage = float(results.parameter("outage.duration"))
    stalls = results.values("stall", variant=TRUSTED)
    leaked = float(results.values("leaked", variant=TRUSTED, source=OUTAGE).sum())
    leaked += float(results.values("emitted", variant=TRUSTED, source=OUTAGE).sum())
    default = float(results.values("leaked", variant=MPTCP, source=OUTAGE).sum())
    measured = (
        f"stalled {stalls.mean():.2f} s ({stalls.min():.2f} to {stalls.max():.2f}) in failures of "
        f"{outage:g} s, then went on; leaked {_size(leaked)} (plain MPTCP {_size(default)})"
    )
    return Verdict.of(leaked == 0 and stalls.min() >= _SHORTEST_STALL * outage, measured)


CLAIMS = (
    Claim(
        "no-leak",
        "With the connection manager no sensitive byte crosses the open WiFi, in either "
        "direction, also when bytes are queued and when the trusted path fails.",
        "D3.1 2.3.2",
        judge_no_leak,
    ),
    Claim(
        "goodput",
        "Other traffic keeps its goodput: a video is within 10% of plain MPTCP while logins and "
        "cookies go their own way.",
        "D3.1 2.3",
        judge_goodput,
    ),
    Claim(
        "default-leaks",
        "MPTCP as it comes sends logins and cookies over the open WiFi, where an attacker "
        "collects them.",
        "D3.1 2.3.1",
        judge_default_leaks,
    ),
    Claim(
        "pooling",
        "MPTCP pools WiFi and LTE: more goodput than the better of the two alone.",
        "D3.1 2.3",
        judge_pooling,
    ),
    Claim(
        "waits",
        "When the trusted path fails, sensitive data waits for its return and does not leak.",
        "D3.1 2.3.2",
        judge_waits,
    ),
)
