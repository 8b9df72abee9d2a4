"""What one value may be: names of nodes and interfaces, MAC and IP addresses, default routes.

Each function raises `TopologyError` for a value that cannot be meant; whoever knows in which
line it was written adds that (`testbed.network.where.at`).  What may stand beside what in a whole
topology is the business of `validate`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from testbed.errors import TopologyError
from testbed.kernel.rtnetlink import Interface

LONGEST_NAME = 15  # bytes: IFNAMSIZ without its final NUL
BRIDGE_PORTS = 1023  # BR_MAX_PORTS without port 0, which the kernel keeps for itself
_KERNEL_NAMES = ("all", "default", ".", "..")  # taken in /proc/sys/net and in file systems
_BAD_IN_NAMES = re.compile(r"[\s/:%\0]")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


def node_name(name: object) -> None:
    """A node's name is one word: it becomes a host name and the beginning of interface names."""
    if not isinstance(name, str) or not name or re.search(r"[\s/\0]", name):
        raise TopologyError(f"a node named {name!r}", remedy="give a name without blanks and /")


def interface_name(name: object, *, node: str = "") -> None:
    """What the kernel takes as the name of an interface (`dev_valid_name` in net/core/dev.c)."""
    remedy = "shorten the node's name, or give intfName1= / intfName2="
    if name == node:
        remedy = "shorten the switch's name: it is an interface too"
    if not isinstance(name, str) or not name:
        raise TopologyError(f"an interface named {name!r}", remedy="give a word")
    if len(name.encode()) > LONGEST_NAME:
        raise TopologyError(
            f"interface name {name!r} is longer than {LONGEST_NAME} characters", remedy=remedy
        )
    if _BAD_IN_NAMES.search(name) or name in _KERNEL_NAMES:
        raise TopologyError(
            f"the kernel takes no interface named {name!r}",
            remedy="give a name without blanks, '/', ':', '%', other than 'all' and 'default'",
        )


def address(text: object, version: int, *, owner: str, prefix: str = "") -> Interface:
    """An IPv4 or IPv6 address with its prefix; `prefix` is the length where `text` has none."""
    wanted = "10.0.1.2/24" if version == 4 else "fd00:1::2/64"
    if not isinstance(text, str):
        raise TopologyError(f"{owner}: {text!r} is not an address", remedy=f'write "{wanted}"')
    if "/" not in text:
        if not prefix:
            raise TopologyError(
                f"{owner}: address {text} has no prefix length",
                remedy=f'write it as "{text}/{24 if version == 4 else 64}"',
            )
        text = f"{text}/{prefix}"
    try:
        found = ipaddress.ip_interface(text)
    except ValueError as error:
        raise TopologyError(
            f"{owner}: {text!r} is not an address", remedy=f'write one like "{wanted}"'
        ) from error
    if found.version != version:
        raise TopologyError(
            f"{owner}: {text} is an IPv{found.version} address",
            remedy="give IPv4 as ip= and IPv6 as ip6=",
        )
    return found


def host_address(found: Interface, *, owner: str) -> None:
    """An address that one node may have: not its network's own and not the broadcast address."""
    network = found.network
    if network.max_prefixlen - network.prefixlen < 2:
        return
    if found.ip == network.network_address:
        what = "the address of the network itself" if found.version == 4 else "every router's too"
    elif found.version == 4 and found.ip == network.broadcast_address:
        what = "the broadcast address"
    else:
        return
    raise TopologyError(
        f"{owner} is given {found}, which is {what}",
        remedy=f"give one like {network[1]}/{network.prefixlen}",
    )


def mac_address(text: object, *, owner: str) -> None:
    """A MAC address that one interface may have."""
    if not isinstance(text, str) or not _MAC.fullmatch(text):
        raise TopologyError(
            f"{owner}: {text!r} is not a MAC address", remedy='write one like "02:00:00:00:00:01"'
        )
    if int(text.split(":")[0], 16) & 1 or not text.strip("0:"):
        raise TopologyError(
            f"{owner}: {text} is the MAC address of no single interface (multicast, or zero)",
            remedy='begin it with an even byte: "02:..."',
        )


def default_route(value: Any, *, owner: str) -> dict[str, str]:
    """ "via ADDRESS [dev INTERFACE] [metric NUMBER]", or an interface, as a dictionary."""
    words = str(value).split()
    if len(words) == 1:
        return {"dev": words[0]}
    options = dict(zip(words[::2], words[1::2], strict=False))
    known = options.keys() <= {"via", "dev", "metric"} and options.keys() & {"via", "dev"}
    if len(words) % 2 or not known or not options.get("metric", "0").isdecimal():
        raise TopologyError(
            f"{owner}: default route {str(value)!r}",
            remedy='write an interface, or "via ADDRESS [dev INTERFACE] [metric NUMBER]"',
        )
    try:
        ipaddress.ip_address(options.get("via", "::"))
    except ValueError as error:
        raise TopologyError(
            f"{owner}: default route {str(value)!r} ({error})", remedy='write "via 10.0.1.1"'
        ) from error
    return options
