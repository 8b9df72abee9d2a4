"""Which packets are lost: seeded, alone or in bursts, the same for the same seed and order."""

from __future__ import annotations

import hashlib
from random import Random

_LOGGED = 10_000


def stream(*names: object) -> Random:
    """A random sequence of its own for each combination of names (a seed, a wire, a purpose)."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=16).digest()
    return Random(int.from_bytes(digest, "big"))


class Loss:
    """Gilbert-Elliott: two states, in one of which every packet is lost (Elliott, BSTJ 1963).

    One random number a packet, whatever the parameters, so the fate of packet n depends on the
    seed, on n and on the parameters only.  `log` keeps the numbers, counted from 1, of the first
    packets lost.
    """

    def __init__(self, random: Random, p: float, r: float) -> None:
        self._random = random.random
        self._losing = False
        self._seen = 0
        self.log: list[int] = []
        self._p = self._r = 0.0
        self.set(p, r)

    def set(self, p: float, r: float) -> None:
        """Change the chances to enter (`p`) and to leave (`r`) the losing state.

        New chances begin in the state they would be found in, so that a loss of 100% takes the
        very next packet.
        """
        if (p, r) != (self._p, self._r):
            self._losing = p > 0 and self._random() < p / (p + r)
        self._p, self._r = p, r
        self.active = p > 0

    def lost(self) -> bool:
        """Is the next packet lost?  Ask once for each packet, while `active`."""
        self._seen += 1
        draw = self._random()
        if not self._losing:
            self._losing = draw < self._p
            return False
        self._losing = draw >= self._r
        if len(self.log) < _LOGGED:
            self.log.append(self._seen)
        return True
