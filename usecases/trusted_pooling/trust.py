"""Which interfaces may carry sensitive bytes: the trust table, loaded and checked.

The table speaks of kinds of interface ("wifi-open", "4g"), not of interfaces; who has which
interface is the topology's business, what follows from trust is `policy`'s.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from testbed.errors import ParameterError

_FIELDS = {"kind": str, "title": str, "trusted": bool, "reason": str}
_KIND = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True, kw_only=True)
class InterfaceKind:
    """One row of the table: a kind of interface, whether it is trusted, and why."""

    kind: str
    title: str
    trusted: bool
    reason: str


class TrustTable(Mapping[str, InterfaceKind]):
    """Kinds of interface by name, in the order of the file."""

    def __init__(self, kinds: Mapping[str, InterfaceKind], *, source: str) -> None:
        self._kinds = dict(kinds)
        self.source = source

    def __getitem__(self, kind: str) -> InterfaceKind:
        """The row of `kind`; `ParameterError` with the nearest names where there is none."""
        if kind in self._kinds:
            return self._kinds[kind]
        near = get_close_matches(kind, self._kinds, n=3) or list(self._kinds)
        raise ParameterError(
            f"{self.source} has no interface kind {kind!r}", remedy=f"use one of {', '.join(near)}"
        )

    def __contains__(self, kind: object) -> bool:
        return kind in self._kinds

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def explain(self) -> str:
        """The table as text: the kind's name and verdict, and below them the reason."""
        width = max(len(f"{row.title} ({row.kind})") for row in self.values())
        return "\n".join(
            f"{f'{row.title} ({row.kind})':<{width}}  {'trusted' if row.trusted else 'not trusted'}"
            f"\n    {row.reason}"
            for row in self.values()
        )


def load(path: str = "") -> TrustTable:
    """Read the table in file `path`, or the project's own when `path` is empty.

    Raises `ParameterError` that names the file, the line and the entry.
    """
    name = path or "trust.toml"
    try:
        text = Path(path).read_text("utf-8") if path else _own()
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(f"cannot read the trust table {name}: {error}") from error
    return parse(text, source=name)


def _own() -> str:
    return resources.files(__package__).joinpath("trust.toml").read_text("utf-8")


def parse(text: str, *, source: str) -> TrustTable:
    """Parse and check a table; `source` names it in errors."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ParameterError(f"{source}: not TOML: {error}") from error
    entries = document.pop("interface", None)
    if document or not isinstance(entries, list) or not entries:
        found = ", ".join(document) or "none"
        raise ParameterError(
            f"{source}: [[interface]] entries expected, found {found}",
            remedy="write one [[interface]] per kind, with kind, title, trusted and reason",
        )
    lines = [n for n, line in enumerate(text.splitlines(), 1) if _opens_entry(line)]
    kinds: dict[str, InterfaceKind] = {}
    for number, entry in enumerate(entries, 1):
        line = f", line {lines[number - 1]}" if len(lines) == len(entries) else ""
        row = _row(entry, where=f"{source}{line}, entry {number}")
        if row.kind in kinds:
            raise ParameterError(f"{source}{line}, entry {number}: {row.kind!r} is there already")
        kinds[row.kind] = row
    return TrustTable(kinds, source=source)


def _opens_entry(line: str) -> bool:
    return re.match(r"\s*\[\[\s*interface\s*\]\]", line) is not None


def _row(entry: object, *, where: str) -> InterfaceKind:
    if not isinstance(entry, dict):
        raise ParameterError(f"{where}: a table expected, found {entry!r}")
    unknown = sorted(set(entry) - set(_FIELDS))
    missing = sorted(set(_FIELDS) - set(entry))
    if unknown or missing:
        wrong = f"unknown key {unknown[0]!r}" if unknown else f"{missing[0]!r} is missing"
        raise ParameterError(f"{where}: {wrong}", remedy=f"the keys are {', '.join(_FIELDS)}")
    for key, wanted in _FIELDS.items():
        _check_value(entry, key, wanted, where)
    return InterfaceKind(**entry)


def _check_value(entry: dict[str, Any], key: str, wanted: type, where: str) -> None:
    value = entry[key]
    if type(value) is not wanted:
        name = "true or false" if wanted is bool else "text"
        raise ParameterError(f"{where}: {key} = {value!r}", remedy=f"{key} is {name}")
    if isinstance(value, str) and not value.strip():
        raise ParameterError(f"{where}: {key} is empty", remedy=f"say the {key}")
    if key == "kind" and not _KIND.fullmatch(str(value)):
        raise ParameterError(
            f"{where}: kind = {value!r}", remedy="use lower-case letters, digits, '-' and '.'"
        )
