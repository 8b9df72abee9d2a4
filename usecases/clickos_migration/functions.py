"""The middlebox that moves: a stateful firewall with source NAT, and deep packet inspection.

Clients may open connections to the servers, which see one address; nothing is let in that does
not belong to one.  A connection whose client asks for a film is known as one from then on: the
kind is found in its first data only, so whoever takes over has to be told.  The same function is
written twice, in the Click language for a light function and in nftables' for a virtual machine.
"""

from __future__ import annotations

from typing import NamedTuple

from testbed.guests import Port
from testbed.kernel import NetworkNamespace
from testbed.vnf.function import Device

PUBLIC = "203.0.113.1"
"""The address that servers see."""

GREETING = "GET /film"
"""What a client that asks for a film sends first."""

_GREETING_AT = 8 * (32 + 14)  # bits from the TCP header: its usual length, and a message's head

CLICK = f"""
inside :: FromDevice(in);
outside :: FromDevice(out);
to_inside :: ToDevice(in);
to_outside :: ToDevice(out);
firewall :: IPFilter(allow new, allow established, deny all);
dpi :: StringMatcher("{GREETING}");
film, other :: Counter;
nat :: IPRewriter(pattern {PUBLIC} - - - 0 1, drop);

inside -> firewall -> dpi;
dpi[0] -> film -> [0] nat;
dpi[1] -> other -> [0] nat;
nat[0] -> to_outside;
outside -> [1] nat;
nat[1] -> to_inside;
"""

NFTABLES = f"""
table ip function {{
  counter film {{ }}
  counter other {{ }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname "in" @th,{_GREETING_AT},{8 * len(GREETING)} 0x{GREETING.encode().hex()} ct mark set 1
    iifname "in" ct mark 1 counter name film
    iifname "in" ct mark 0 counter name other
    ct state established,related accept
    iifname "in" ct state new tcp flags & (fin|syn|rst|ack) == syn accept
  }}
  chain leaving {{
    type nat hook postrouting priority srcnat;
    oifname "out" snat to {PUBLIC}
  }}
}}
"""


class Cable(NamedTuple):
    """Addresses of a function's device and of the platform's end of its cable."""

    device: str
    function: str
    platform: str


INSIDE = Cable("in", "10.250.1.2", "10.250.1.1")
OUTSIDE = Cable("out", "10.250.2.2", "10.250.2.1")
_PREFIX = 30


def devices(platform: NetworkNamespace, clients: list[str]) -> dict[str, Device]:
    """Devices of a light function in a platform; `clients` are subnets."""
    routes = _routes(clients)
    return {
        cable.device: Device(
            platform=platform,
            addresses=[f"{cable.function}/{_PREFIX}"],
            peer=f"fn-{cable.device}",
            peer_addresses=[f"{cable.platform}/{_PREFIX}"],
            routes={to: cable.platform for to, by in routes.items() if by is cable},
        )
        for cable in (INSIDE, OUTSIDE)
    }


def ports() -> list[Port]:
    """The same cables for a virtual machine."""
    return [
        Port(
            device=cable.device,
            address=f"{cable.function}/{_PREFIX}",
            tap=f"vm-{cable.device}",
            tap_address=f"{cable.platform}/{_PREFIX}",
        )
        for cable in (INSIDE, OUTSIDE)
    ]


def vm_routes(clients: list[str]) -> dict[str, str]:
    """Routes in a virtual machine: destination to next hop."""
    return {to: cable.platform for to, cable in _routes(clients).items()}


def _routes(clients: list[str]) -> dict[str, Cable]:
    return {**dict.fromkeys(clients, INSIDE), "default": OUTSIDE}
