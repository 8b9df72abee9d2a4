"""VLANs (IEEE 802.1Q) on a node's interfaces: has the kernel got them?"""

from __future__ import annotations

import functools
import subprocess

from testbed.errors import FeatureError
from testbed.kernel import NetworkNamespace

_PROBE = "ip link add b type bridge && ip link add link b name b.2 type vlan id 2"


@functools.cache
def missing() -> str:
    """Why an interface can be in no VLAN here, or an empty string; tried in a namespace."""
    namespace = NetworkNamespace.create()
    try:
        with namespace:
            done = subprocess.run(["sh", "-c", _PROBE], capture_output=True, text=True)
    finally:
        namespace.close()
    return "" if done.returncode == 0 else "this kernel has no VLANs (8021q)"


def require(command: str) -> None:
    """Refuse a shell command that makes a VLAN where that fails, which scripts do not look for."""
    if command.split()[:2] == ["vconfig", "add"] and (reason := missing()):
        raise FeatureError(
            f"{command}: {reason}",
            remedy="modprobe 8021q, or use a kernel with CONFIG_VLAN_8021Q",
        )
