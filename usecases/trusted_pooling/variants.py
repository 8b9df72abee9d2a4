"""The four ways to use two interfaces, and how the hosts are set up for each."""

from __future__ import annotations

from typing import Any

from testbed.mptcp.configure import (
    MAX_SUBFLOWS,
    PathManagerKind,
    configure,
    configure_endpoints,
)
from testbed.mptcp.path_manager import PathManager
from usecases.trusted_pooling.policy import Interface

LTE_ONLY, WIFI_ONLY, MPTCP, TRUSTED = "lte-only", "wifi-only", "mptcp", "trusted"

VARIANTS = {
    LTE_ONLY: "everything over LTE: safe, and slow",
    WIFI_ONLY: "everything over the open WiFi",
    MPTCP: "Multipath TCP as it comes: every connection uses both, whatever it carries",
    TRUSTED: "a connection manager keeps sensitive bytes on trusted interfaces",
}


def managed(variant: str) -> bool:
    """Does the variant use the connection manager with the trust table?"""
    return variant == TRUSTED


def preference(variant: str, wifi: Interface, lte: Interface) -> tuple[Interface, ...]:
    """The phone's interfaces, the one connections start from first (phones prefer WiFi)."""
    return (lte, wifi) if variant == LTE_ONLY else (wifi, lte)


def prepare(variant: str, phone: Any, server: Any) -> None:
    """Set up path managers and the default congestion control of both hosts."""
    kind: PathManagerKind = "userspace" if managed(variant) else "kernel"
    for node in (phone, server):
        configure(node.netns, enabled=True, path_manager=kind, congestion="reno")
        with PathManager(node.netns) as manager:
            manager.set_limits(subflows=0, add_addr_accepted=0)
    if variant == MPTCP:
        configure_endpoints(phone.netns, phone.intfList())
        with PathManager(server.netns) as manager:
            manager.set_limits(subflows=MAX_SUBFLOWS)
