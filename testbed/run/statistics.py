"""The little statistics an experiment needs: confidence of a mean, plausibility of a count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

# two-sided 95% quantiles of Student's t for 1 to 30 degrees of freedom
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_EXACT_BELOW = 100.0  # variance up to which counts are judged by the exact distribution


def t95(degrees: int) -> float:
    """Two-sided 95% quantile of Student's t (error below 0.001 for any number of degrees)."""
    if degrees < 1:
        return math.inf
    if degrees <= len(_T95):
        return _T95[degrees - 1]
    z = NormalDist().inv_cdf(0.975)
    # Cornish-Fisher expansion about the normal quantile (Abramowitz and Stegun 26.7.5)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / degrees + second / degrees**2


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over `count` repeats and its 95% confidence interval.

    With one repeat there is no interval: `low` and `high` are the mean itself.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def half_width(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        if self.count < 2:
            return f"{self.mean:.4g} (1 trial)"
        return f"{self.mean:.4g} ± {self.half_width:.2g} ({self.count} trials)"


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of `values` (at least one) with its 95% t-interval."""
    mean, count = fmean(values), len(values)
    half = t95(count - 1) * stdev(values) / math.sqrt(count) if count > 1 else 0.0
    return Estimate(mean=mean, low=mean - half, high=mean + half, count=count)


def plausible_counts(
    trials: int, ratio: float, *, confidence: float = 0.99, clustering: float = 1.0
) -> tuple[int, int]:
    """Least and largest number of losses of `trials` packets that `ratio` explains.

    The central interval of the binomial distribution at `confidence`.  `clustering` is by how
    much losses in bursts spread the count's variance (`clustering_of`).
    """
    if trials <= 0 or ratio <= 0:
        return 0, 0
    if ratio >= 1:
        return trials, trials
    tail = (1 - confidence) / 2
    draws = max(1, round(trials / clustering))
    if draws * ratio * (1 - ratio) < _EXACT_BELOW:
        low, high = _exact(draws, ratio, tail)
    else:
        reach = NormalDist().inv_cdf(1 - tail) * math.sqrt(draws * ratio * (1 - ratio))
        low, high = math.floor(draws * ratio - reach), math.ceil(draws * ratio + reach)
    low, high = math.floor(low * clustering), math.ceil(high * clustering)
    return max(0, low), min(trials, high)


def clustering_of(p: float, r: float) -> float:
    """Variance of a Gilbert-Elliott chain's count of losses against independent losses.

    `p` and `r` are the chances to enter and leave the lossy state; neighbouring packets are
    correlated by 1 - p - r.  Never below 1.
    """
    correlation = 1 - p - r
    return max(1.0, (1 + correlation) / (1 - correlation)) if correlation < 1 else 1.0


def _exact(trials: int, ratio: float, tail: float) -> tuple[int, int]:
    if ratio > 0.5:
        low, high = _exact(trials, 1 - ratio, tail)
        return trials - high, trials - low
    low, below = -1, 0.0
    for count in range(trials + 1):
        below += math.exp(
            math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
            + count * math.log(ratio) + (trials - count) * math.log1p(-ratio)
        )  # fmt: skip
        if low < 0 and below > tail:
            low = count
        if below >= 1 - tail:
            return max(low, 0), count
    return max(low, 0), trials
