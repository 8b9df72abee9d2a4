"""The shell commands that give a fresh guest what a node of a network has: nothing is run here.

Interfaces with their names and addresses, routes by plan with a table for each address, kernel
settings.  What an interface or node of `testbed.network` does by netlink in a namespace is done
by these in the guest.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from testbed.network.addressing import NodeRoutes, Route

_FIRST_TABLE = 100  # of source routing


@dataclass(frozen=True)
class Card:
    """An interface as it should be in the guest: addresses have their prefixes."""

    name: str
    addresses: tuple[str, ...] = ()
    up: bool = True


def equip(
    cards: Iterable[Card],
    *,
    routes: NodeRoutes | None = None,
    commands: Iterable[str] = (),
    settings: Mapping[str, str | int] | None = None,
) -> str:
    """A script that makes a guest which has just booted into the node."""
    lines = ["set -e", "ip link set lo up"]
    lines += [setting(name, value) for name, value in (settings or {}).items() if early(name)]
    for number, card in enumerate(cards):
        lines += configured(number, card)
    lines += planned(routes) if routes else []
    lines += commands
    lines += [setting(name, value) for name, value in (settings or {}).items() if not early(name)]
    return "\n".join(lines)


def early(name: str) -> bool:
    """Is a kernel setting one that interfaces take when they come up?"""
    return "/default/" in name.replace(".", "/")


def configured(number: int, card: Card) -> list[str]:
    """Commands for interface `number` of a fresh guest."""
    lines = [f"ip link set eth{number} name {card.name}"]
    for address in card.addresses:
        lines.append(f"ip addr add {address} dev {card.name}")
    for protocol in ("ipv4", "ipv6"):  # what was set for interfaces to come
        for name in ("accept_dad", "addr_gen_mode", "rp_filter"):
            default = f"/proc/sys/net/{protocol}/conf/default/{name}"
            own = f"/proc/sys/net/{protocol}/conf/{card.name}/{name}"
            lines.append(f"[ ! -e {default} ] || cat {default} >{own}")
    return [*lines, f"ip link set {card.name} up"] if card.up else lines


def planned(routes: NodeRoutes) -> list[str]:
    """Commands for the routes that a plan has for a node."""
    lines = [route(each) for each in routes.main]
    for table, source in enumerate(routes.by_source, _FIRST_TABLE):
        lines += [route(each, table) for each in source.routes]
        family = "-6" if source.source.version == 6 else "-4"
        lines.append(f"ip {family} rule add from {source.source} lookup {table} priority {table}")
    return lines


def route(planned: Route, table: int = 0) -> str:
    """The command for one route."""
    to = planned.destination
    words = ["ip", f"-{to.version}", "route", "replace", str(to)]
    words += ["via", planned.via] if planned.via else []
    words += ["dev", planned.interface] if planned.interface else []
    words += ["metric", str(planned.metric)] if planned.metric else []
    words += ["table", str(table)] if table else []
    return " ".join(words)


def added_route(destination: str, via: str, dev: str, table: int, metric: int) -> str:
    """The command for a route that is added by hand."""
    to = ipaddress.ip_network(destination)
    return route(Route(to, dev, via, metric), table)


def behind(gateways: Iterable[str], interface: str) -> NodeRoutes:
    """Default routes over the addresses of a gateway."""
    defaults = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}
    versions = [(ipaddress.ip_address(via).version, via) for via in gateways]
    return NodeRoutes(main=[Route(defaults[version], interface, via) for version, via in versions])


def setting(name: str, value: str | int) -> str:
    """The command for one kernel setting."""
    return f"echo {shlex.quote(str(value))} >{setting_path(name)}"


def setting_path(name: str) -> str:
    """Where a kernel setting is."""
    return shlex.quote("/proc/sys/" + (name if "/" in name else name.replace(".", "/")))


def neighbour(address: str, mac: str, interface: str) -> str:
    """The command for a neighbour that is known for good."""
    family = ipaddress.ip_address(address).version
    return f"ip -{family} neigh replace {address} lladdr {mac} dev {interface} nud permanent"
