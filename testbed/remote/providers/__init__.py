"""Who brings a machine up and down: QEMU, Vagrant, or nobody (a host that is up anyway)."""

from __future__ import annotations

from testbed.errors import FeatureError
from testbed.remote.machines import Machine
from testbed.remote.providers.base import RUNNING, STOPPED, Provider
from testbed.remote.providers.host import Host
from testbed.remote.providers.qemu import Qemu
from testbed.remote.providers.vagrant import Vagrant

__all__ = ["RUNNING", "STOPPED", "Provider", "choose", "provider"]

KINDS: dict[str, type[Provider]] = {each.kind: each for each in (Vagrant, Qemu, Host)}


def provider(machine: Machine) -> Provider:
    """The provider of a machine."""
    return KINDS[machine.provider](machine)


def choose(asked: str = "") -> tuple[str, str]:
    """(kind, why): the one asked for, else Vagrant where it is installed, else QEMU.

    Raises `FeatureError` where what was asked for, or both, cannot be used here.
    """
    lacks = {kind: KINDS[kind].missing() for kind in ([asked] if asked else ["vagrant", "qemu"])}
    for kind, reason in lacks.items():
        if not reason:
            others = [lacks[each].partition("; ")[0] for each in lacks if lacks[each]]
            return kind, "; ".join(others)
    reasons = [reason.partition("; ") for reason in lacks.values()]
    what = ", and ".join(reason[0] for reason in reasons)
    remedies = [reason[2] for reason in reasons] + ([] if asked else ["--host USER@HOST"])
    raise FeatureError(f"no machine: {what}", remedy=", or ".join(remedies))
