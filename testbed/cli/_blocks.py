"""Marked blocks of a Markdown page: what is generated there stands between two comments.

<!-- bench:NAME -->
...
<!-- end -->
"""

from __future__ import annotations

import re

from testbed.errors import UserError

_END = "<!-- end -->"
_BEGIN = re.compile(r"^<!-- bench:([\w-]+) -->$", re.MULTILINE)


def blocks(page: str) -> dict[str, str]:
    """What stands in each block, by name.

    Raises `UserError` for a block without an end and for a name that occurs twice.
    """
    found: dict[str, str] = {}
    for match in _BEGIN.finditer(page):
        name = match[1]
        content, end, _rest = page[match.end() :].partition(f"\n{_END}")
        if not end or _BEGIN.search(content):
            raise UserError(f"block {name!r} has no end", remedy=f"put {_END} on a line below it")
        if name in found:
            raise UserError(f"there are two blocks {name!r}", remedy="remove one of them")
        found[name] = content.strip("\n")
    return found


def put(page: str, name: str, content: str) -> str:
    """The page with `content` in block `name`; a page without that block gets it at its end."""
    begin = f"<!-- bench:{name} -->"
    block = f"{begin}\n{content.strip()}\n{_END}"
    if name not in blocks(page):
        return f"{page.rstrip()}\n\n## {name}\n\n{block}\n"
    before, _begin, rest = page.partition(begin)
    _old, _end, after = rest.partition(_END)
    return before + block + after
