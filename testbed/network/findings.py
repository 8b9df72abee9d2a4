"""What was found wrong with a topology, and the one error that says all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from testbed.errors import TestbedError, TopologyError, UserError
from testbed.network.where import Place, prefix

_AT_MOST = 12  # lines of one error


class Problem(NamedTuple):
    """One thing that is wrong: what, the remedy, the line it was written in."""

    text: str
    remedy: str
    place: Place | None
    warning: bool = False
    kind: type[TestbedError] = TopologyError

    @classmethod
    def of(cls, error: TestbedError, place: Place | None, before: str = "") -> Problem:
        """The problem that `error` names."""
        return cls(before + error.message, error.remedy, place, kind=type(error))

    @property
    def message(self) -> str:
        """What is wrong and where, without the remedy."""
        return prefix(self.place) + self.text

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


@contextmanager
def found_by(place: Place | None) -> Iterator[list[Problem]]:
    """A list that a rule broken inside the block becomes a problem in."""
    found: list[Problem] = []
    try:
        yield found
    except UserError as error:
        found.append(Problem.of(error, place))


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """In the order of the user's lines, those without a line last; each once."""
    unique = list(dict.fromkeys(problems))
    return sorted(unique, key=lambda each: (each.place is None, each.place or ("", 0)))


def refusal(problems: Sequence[Problem]) -> TestbedError:
    """One error that names them all, a line each (and how many more, where there are many).

    It is of their own kind where they share one, a `TopologyError` otherwise.
    """
    kinds = {each.kind for each in problems}
    kind = kinds.pop() if len(kinds) == 1 else TopologyError
    if len(problems) == 1:
        return kind(problems[0].message, remedy=problems[0].remedy)
    lines = [str(each) for each in problems[:_AT_MOST]]
    if len(problems) > _AT_MOST:
        lines.append(f"(and {len(problems) - _AT_MOST} more)")
    return kind("\n".join(lines))
