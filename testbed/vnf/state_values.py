"""What counters and quotas of a program have counted, read from its listing and written into one.

A counter keeps its value where it is: in a rule, or under a name that rules refer to.  The kernel
changes neither in place, so values are put back by loading the program's own rules again with the
values in them, in one transaction.  Rates (`limit`) are not told by the kernel: they begin full.

Text as nft(8) lists it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from testbed.errors import ExperimentError
from testbed.kernel.nftables import Nftables

_SIZE = r"\d+ [kmg]?bytes"
_VALUE = re.compile(
    r"(?P<counter>\bpackets \d+ bytes \d+)"
    rf"|(?P<quota>(?<!burst )(?<!rate )(?<!rate over )\b{_SIZE}(?! ?/))(?P<used> used {_SIZE})?"
)
_OBJECT = re.compile(r"^\t(counter|quota) (\S+) \{", re.MULTILINE)


def read(listing: str) -> tuple[str, ...]:
    """Values in the order in which they stand in a listing."""
    return tuple(_value(match) for match in _VALUE.finditer(listing))


def _value(match: re.Match[str]) -> str:
    return match["counter"] or (match["used"] or " used 0 bytes").strip()


def write(listing: str, values: Sequence[str], *, table: str) -> str:
    """The listing with other values; `ExperimentError` unless it has as many of each kind."""
    here = read(listing)
    if [value[0] for value in here] != [value[0] for value in values]:
        raise ExperimentError(
            f"table {table} counts {len(here)} values, the state has {len(values)} or others",
            remedy="put state into a function of the same program",
        )
    waiting = iter(values)
    return _VALUE.sub(lambda match: _written(match, next(waiting)), listing)


def _written(match: re.Match[str], value: str) -> str:
    return value if match["counter"] else f"{match['quota']} {value}"


def load(nft: Nftables, table: str, values: Sequence[str], *, maps: Sequence[str] = ()) -> bool:
    """Let a table count on from `values`, if it does not already; was anything to be done?

    `maps` lead to named objects and are emptied: their elements are to be put back afterwards.
    Rules get other handles.
    """
    listing = nft.listing(table)
    wanted = write(listing, values, table=table)
    if wanted == listing:
        return False
    commands = [f"flush table {table}", *(f"flush map {table} {name}" for name in maps)]
    commands += [f"delete {kind} {table} {name}" for kind, name in _OBJECT.findall(listing)]
    nft.run("\n".join([*commands, wanted]))
    return True
