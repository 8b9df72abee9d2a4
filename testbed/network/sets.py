"""Disjoint sets: which things have been joined, directly or through others."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Sets(Generic[T]):
    """A partition that starts with everything apart (union-find with path halving)."""

    def __init__(self) -> None:
        self._above: dict[T, T] = {}

    def of(self, thing: T) -> T:
        """A thing that stands for the whole set of `thing`."""
        above = self._above
        while (parent := above.setdefault(thing, thing)) is not thing:
            above[thing] = above[parent]
            thing = parent
        return thing

    def join(self, one: T, two: T) -> bool:
        """Make one set of two; False where they were one already."""
        first, second = self.of(one), self.of(two)
        self._above[first] = second
        return first is not second
