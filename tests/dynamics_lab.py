"""What the tests of changing networks share: who reaches whom, carriers, configurations."""

from __future__ import annotations

import time
from typing import Any


def reaches(source: Any, target: str) -> bool:
    """Does one of some pings get an answer?"""
    said = source.cmd(f"ping -c 4 -i 0.1 -W 0.4 -w 1 {target}")
    return " 0 received" not in said and "received" in said


def until(condition: Any, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def carrier(node: Any, intf: str) -> bool:
    state = node.netlink.link(intf)
    return bool(state.up and state.operstate != 2 and state.operstate != 7)


def configuration(node: Any) -> str:
    """Addresses and routes in both families, without what says only that a link is down."""
    parts = ("-4 addr", "-6 addr show scope global", "-4 route show table all", "-6 route")
    said = "\n".join(node.cmd(f"ip {part}") for part in parts)
    kept = [line for line in said.splitlines() if "fe80" not in line and "mtu" not in line]
    words = (line.replace(" linkdown", "").replace(" dead", "").split(" qlen")[0] for line in kept)
    return "\n".join(sorted(word.strip() for word in words))
