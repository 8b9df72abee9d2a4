"""The journey: which moves a trial makes, from where to where, and why.

out    the phone's WiFi is poor: on to the tablet, which has LTE
back   the WiFi has become better: back to the phone
load   other tasks compete with the machine on the phone: on to the tablet, which is idle
"""

from __future__ import annotations

from dataclasses import dataclass

PHONE, TABLET = "phone", "tablet"
MIGRATE_MPTCP, MIGRATE_TCP = "migrate-mptcp", "migrate-tcp"
RESTART, COLD = "restart", "cold"

VARIANTS = {
    RESTART: "stopped at the source, booted anew at the target",
    COLD: "suspended to a file, which is copied and resumed from; Multipath TCP",
    MIGRATE_TCP: "live migration; the player's connection is plain TCP",
    MIGRATE_MPTCP: "live migration; the player's connection is Multipath TCP",
}


@dataclass(frozen=True)
class Leg:
    """One move."""

    name: str
    source: str
    target: str
    title: str


OUT = Leg("out", PHONE, TABLET, "poor WiFi to LTE")
BACK = Leg("back", TABLET, PHONE, "back to better WiFi")
LOAD = Leg("load", PHONE, TABLET, "loaded phone to idle tablet")
LEGS = (OUT, BACK, LOAD)
_SCENARIOS = {"network": (OUT, BACK), "cpu": (LOAD,), "both": LEGS}


def journey(variant: str, *, scenario: str, once: bool) -> tuple[Leg, ...]:
    """The moves of one trial; all variants but the tool's make the first one only if `once`."""
    legs = _SCENARIOS[scenario]
    return legs[:1] if once and variant != MIGRATE_MPTCP else legs
