"""How a statement fared against what was measured: it holds, it does not, or nobody can say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

HOLDS: Final = "holds"
FAILS: Final = "does not hold"
NOT_MEASURABLE: Final = "not measurable here"


@dataclass(frozen=True)
class Verdict:
    """The outcome of a claim: what was measured, or why it could not be."""

    outcome: Literal["holds", "does not hold", "not measurable here"]
    measured: str = ""
    why: str = ""

    @classmethod
    def holds(cls, measured: object) -> Verdict:
        """The claim holds; `measured` says by which figure ("0 bytes in 20 trials")."""
        return cls(HOLDS, str(measured))

    @classmethod
    def fails(cls, measured: object) -> Verdict:
        """The claim does not hold; `measured` says what was seen instead."""
        return cls(FAILS, str(measured))

    @classmethod
    def not_measurable(cls, why: str) -> Verdict:
        """The claim cannot be judged on this machine or from these records."""
        return cls(NOT_MEASURABLE, why=why)

    @classmethod
    def of(cls, truth: bool, measured: object) -> Verdict:
        """`holds` where `truth`, else `fails`."""
        return cls.holds(measured) if truth else cls.fails(measured)

    def __str__(self) -> str:
        return f"{self.outcome}: {self.why}" if self.why else self.outcome
