"""Which bitrate to fetch next: by the buffer (BBA-0); no I/O.

T.-Y. Huang et al., "A Buffer-Based Approach to Rate Adaptation", SIGCOMM 2014, Algorithm 1.  The
network's rate is not estimated, so a pause of the network, or of the whole machine, is not taken
for a slow one; it empties the buffer, and that is what counts.

A live stream's buffer is short, and a segment of a high bitrate may outlast it when the network
becomes slow.  So one is not asked for that would take more than 70% of the buffer at the pace of
the segment before (the InsufficientBufferRule of dash.js).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_SAFETY = 0.7


class BufferBased:
    """Lowest rate up to `reservoir_s` of buffer, highest from `cushion_s` more on.

    Between them the rate follows the buffer in a straight line, and is left only when the line
    has reached the next higher or the next lower one.
    """

    def __init__(self, rates: Sequence[float], *, reservoir_s: float, cushion_s: float) -> None:
        self.rates = tuple(rates)
        """bit/s, ascending."""
        self.chosen = 0
        """Index of the rate that was chosen last."""
        self._reservoir_s, self._cushion_s = reservoir_s, cushion_s

    def choose(
        self, buffer_s: float, *, segment_s: float = 1.0, throughput: float = math.inf
    ) -> int:
        """Index of the rate for the next segment, which lasts `segment_s`.

        `throughput` is what the last segment came at (bit/s; infinity: there was none).
        """
        rates, now = self.rates, self.chosen
        line = self._line(buffer_s)
        higher = rates[min(now + 1, len(rates) - 1)]
        lower = rates[max(now - 1, 0)]
        if line >= higher:
            self.chosen = max(index for index, rate in enumerate(rates) if rate <= line)
        elif line <= lower:
            self.chosen = min(index for index, rate in enumerate(rates) if rate >= line)
        self.chosen = min(self.chosen, self._in_time(buffer_s, throughput, segment_s))
        return self.chosen

    def _in_time(self, buffer_s: float, throughput: float, segment_s: float) -> int:
        """Index of the highest rate whose segment comes long before the buffer is empty."""
        most = _SAFETY * buffer_s / segment_s * throughput
        return max((index for index, rate in enumerate(self.rates) if rate <= most), default=0)

    def _line(self, buffer_s: float) -> float:
        share = (buffer_s - self._reservoir_s) / self._cushion_s
        return self.rates[0] + min(1.0, max(0.0, share)) * (self.rates[-1] - self.rates[0])
