"""Conditions on packets as nftables matches: and, or, not, and the rules they come to.

A rule of nftables is a conjunction of matches, so a condition becomes its disjunctive normal
form: one rule for each conjunction.  A match on a field of a protocol is no match where the
packet is of another protocol; that is said by a match of its own, so that `not` means what it
says: `not src port 80` holds for a packet without ports.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_MOST_RULES = 500


class TooManyRules(Exception):
    """A condition whose normal form is too long."""


@dataclass(frozen=True)
class Match:
    """`left` is (or is not) one of `values`: `ip saddr`, `tcp flags & syn`, ..."""

    left: str
    values: tuple[str, ...]
    negated: bool = False

    def __str__(self) -> str:
        if self.left == "ct state" and len(self.values) > 1:  # bits, looked at together
            return f"ct state {'!= ' if self.negated else ''}{','.join(self.values)}"
        right = self.values[0] if len(self.values) == 1 else f"{{ {', '.join(self.values)} }}"
        return f"{self.left} {'!=' if self.negated else '=='} {right}"


@dataclass(frozen=True)
class All:
    """Every part holds; without parts, always."""

    parts: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class Any:
    """Some part holds; without parts, never."""

    parts: tuple[Condition, ...] = ()


Condition = Match | All | Any
ALWAYS, NEVER = All(), Any()


def negation(condition: Condition) -> Condition:
    """What holds where `condition` does not."""
    match condition:
        case Match():
            return replace(condition, negated=not condition.negated)
        case All(parts):
            return Any(tuple(map(negation, parts)))
    return All(tuple(map(negation, condition.parts)))


def rules(condition: Condition) -> list[str]:
    """Matches of rules of which at least one applies exactly where `condition` holds.

    Raises `TooManyRules`.
    """
    return [" ".join(map(str, matches)) for matches in _normal(condition)]


def lefts(condition: Condition) -> set[str]:
    """What all the matches look at."""
    if isinstance(condition, Match):
        return {condition.left}
    return set().union(*map(lefts, condition.parts))


def _normal(condition: Condition) -> list[tuple[Match, ...]]:
    match condition:
        case Match():
            return [(condition,)]
        case Any():
            found = [term for part in _merged(condition.parts) for term in _normal(part)]
            _check(len(found))
            return list(dict.fromkeys(found))
    terms: list[tuple[Match, ...]] = [()]
    for part in condition.parts:
        more = _normal(part)
        _check(len(terms) * len(more))
        terms = [
            both for term in terms for each in more if (both := _joined(term, each)) is not None
        ]
    return terms


def _check(number: int) -> None:
    if number > _MOST_RULES:
        raise TooManyRules


def _joined(first: tuple[Match, ...], second: tuple[Match, ...]) -> tuple[Match, ...] | None:
    """Both, without repetition; None where one denies the other."""
    denied = {negation(each) for each in first}
    if denied & set(second):
        return None
    return tuple(dict.fromkeys(first + second))


def _merged(parts: tuple[Condition, ...]) -> list[Condition]:
    """Alternatives that differ in one value only become one with a set of values.

    Alternatives may come as `All(same..., Match)`, where what they have in common is kept.
    """
    groups: dict[tuple[object, ...], list[Match]] = {}
    found: list[Condition] = []
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, Any) else (part,))]
    for part in flat:
        inside = part.parts if isinstance(part, All) else (part,)
        last = inside[-1] if inside else None
        if not isinstance(last, Match) or last.negated or any("-" in v for v in last.values):
            found.append(part)
            continue
        groups.setdefault((inside[:-1], last.left), []).append(last)
    for (common, left), matches in groups.items():
        values = tuple(dict.fromkeys(value for match in matches for value in match.values))
        if any("/" in value for value in values) and len(values) > 1:  # sets take no overlaps
            found += [All((*common, match)) for match in matches]  # type: ignore[misc]
        else:
            found.append(All((*common, Match(str(left), values))))  # type: ignore[misc]
    return found
