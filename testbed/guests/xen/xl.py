"""Answers of xl: domains and their states, why one ended, and one line of what went wrong.

Nothing here runs it.  Format: xl(1), "list"; messages of libxl and xl 4.17.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_REASONS = {0: "powered off", 1: "rebooted", 2: "was suspended", 3: "crashed", 4: "hung (watchdog)"}
_SHUT_DOWN = re.compile(r"Domain \d+ has shut down, reason code (\d+)")
_DESTROYED = re.compile(r"Domain \d+ has been destroyed")
_PLACE = re.compile(r"^(?:libxl|xc): error: (?:[\w/]+\.c:\d+:\w+: )?(?:Domain \d+:)?")
_CRASHED = "c"


@dataclass(frozen=True)
class Domain:
    """A line of `xl list`; `state` has the letters of its column (r, b, p, s, c, d).

    `cpu_s` is the processor time it has taken, in seconds.
    """

    name: str
    number: int
    memory_mb: int
    cpus: int
    state: str
    cpu_s: float

    @property
    def crashed(self) -> bool:
        """Has it crashed, and been kept?"""
        return _CRASHED in self.state


def domains(listed: str) -> list[Domain]:
    """What `xl list` printed; lines that are none are passed by."""
    found = []
    for line in listed.splitlines():
        words = line.rsplit(maxsplit=5)
        if len(words) == 6 and words[1].isdigit():
            name, number, memory, cpus, state, seconds = words
            flags = state.replace("-", "")
            found.append(Domain(name, int(number), int(memory), int(cpus), flags, float(seconds)))
    return found


def ended(log: str) -> str:
    """Why a domain ended, by the log of the xl that watched it."""
    reasons = _SHUT_DOWN.findall(log)
    if reasons:
        return _REASONS.get(int(reasons[-1]), f"shut down (reason {reasons[-1]})")
    return "was destroyed" if _DESTROYED.search(log) else "is gone"


def trouble(said: str) -> str:
    """The one line that says what went wrong: the first error, without its place in the source."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    scripts = [line for line in lines if " script: " in line]  # what one of them says
    errors = [line for line in lines if re.search(r"error|failed|cannot|unable", line, re.I)]
    return _PLACE.sub("", (scripts or errors or lines or ["xl gave no reason"])[0]).strip()
