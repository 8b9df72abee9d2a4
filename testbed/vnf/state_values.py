"""What counters and quotas of a program have counted, read from its listing and written into one.

A counter keeps its value where it is: in a rule, or under a name that rules refer to.  The kernel
changes neither in place, so values are put back by loading rules that count again with the values
in them, in one transaction.  Rates (`limit`) are not told by the kernel: they begin full.

Text as nft(8) lists it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from testbed.errors import ExperimentError
from testbed.kernel.nftables import Nftables

_SIZE = r"\d+ [kmg]?bytes"
_VALUE = re.compile(
    r"(?P<counter>\bpackets \d+ bytes \d+)"
    rf"|(?P<quota>(?<!burst )(?<!rate )(?<!rate over )\b{_SIZE}(?! ?/))(?P<used> used {_SIZE})?"
)
_BLOCK = re.compile(r"^\t((?:counter|quota|chain) \S+) \{\n.*?^\t\}\n", re.MULTILINE | re.DOTALL)


Values = Mapping[str, Sequence[str]]
"""Values in the order of their places, by what holds them ("counter seen", "chain forward")."""


def read(listing: str) -> dict[str, tuple[str, ...]]:
    """Values in a listing of a table."""
    found = {
        holder: tuple(_value(match) for match in _VALUE.finditer(text))
        for holder, text in _blocks(listing).items()
    }
    return {holder: values for holder, values in found.items() if values}


def _blocks(listing: str) -> dict[str, str]:
    return {match[1]: match[0] for match in _BLOCK.finditer(listing)}


def _value(match: re.Match[str]) -> str:
    return match["counter"] or (match["used"] or " used 0 bytes").strip()


def write(listing: str, values: Values, *, table: str) -> dict[str, str]:
    """Texts of what holds values in a listing, with other values.

    Raises `ExperimentError` unless the same things hold values, as many of each kind.
    """
    here, blocks = read(listing), _blocks(listing)
    for holder in sorted({*here, *values}):
        kinds = [[value[0] for value in side.get(holder, ())] for side in (here, values)]
        if kinds[0] != kinds[1]:
            raise ExperimentError(
                f"table {table}: {holder} counts otherwise than the state says",
                remedy="put state into a function of the same program",
            )
    return {holder: _written(blocks[holder], values[holder]) for holder in here}


def _written(text: str, values: Sequence[str]) -> str:
    waiting = iter(values)

    def value(match: re.Match[str]) -> str:
        return next(waiting) if match["counter"] else f"{match['quota']} {next(waiting)}"

    return _VALUE.sub(value, text)


def load(nft: Nftables, table: str, values: Values, *, maps: Sequence[str] = ()) -> bool:
    """Let a table count on from `values`, if it does not already; was anything to be done?

    `maps` lead to named objects and are emptied: their elements are to be put back afterwards.
    Chains that count, and no others, are made anew: their rules get other handles.
    """
    listing = nft.listing(table)
    here, wanted = _blocks(listing), write(listing, values, table=table)
    changed = [holder for holder, text in wanted.items() if read(here[holder]) != read(text)]
    if not changed:
        return False
    nft.run("\n".join(_commands(table, here | wanted, changed, maps)))
    return True


def _commands(
    table: str, blocks: Mapping[str, str], changed: Sequence[str], maps: Sequence[str]
) -> Iterator[str]:
    objects = [holder for holder in changed if not holder.startswith("chain ")]
    names = [f'name "{holder.partition(" ")[2]}"' for holder in objects]
    chains = [
        holder
        for holder, text in blocks.items()
        if holder.startswith("chain ")
        and (holder in changed or any(name in text for name in names))
    ]
    for holder in chains:
        yield f"flush chain {table} {holder.partition(' ')[2]}"
    yield from (f"flush map {table} {name}" for name in maps)
    for holder in objects:
        kind, name = holder.split(" ", 1)
        yield f"delete {kind} {table} {name}"
    yield f"table {table} {{"
    yield from (blocks[holder] for holder in (*objects, *chains))
    yield "}"
