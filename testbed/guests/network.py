"""A guest's new network after a move: prepared where it is, and set when it has arrived.

Break before make: the old address goes, the new one comes, and Multipath TCP connections go on by
a new subflow from it.  A machine whose instructions are translated is slow at what it has not done
since it arrived, starting a program above all.  So the program that sets the network is started
before the move, and waits for its commands.
"""

from __future__ import annotations

import ipaddress
import shlex
from dataclasses import dataclass

from testbed.errors import ParameterError
from testbed.guests.backend import Vm

_COMMANDS, _DONE, _SAID = "/run/network", "/run/network.done", "/run/network.said"
_PREPARE = f"""
[ ! -p {_COMMANDS} ] || exit 0
mkfifo {_COMMANDS} {_DONE}
{{ ip -batch {_COMMANDS} >{_SAID} 2>&1; echo $? >{_DONE}; }} &
"""
_SET = f"""
say() {{{{ printf '%s\\n' {{commands}}; }}}}
[ -p {_COMMANDS} ] || {{{{ say | ip -batch -; exit; }}}}
say >{_COMMANDS}
read -r status <{_DONE}
rm {_COMMANDS} {_DONE}
[ "$status" = 0 ] || {{{{ cat {_SAID}; exit "$status"; }}}}
"""


@dataclass(frozen=True, kw_only=True)
class GuestNetwork:
    """What a guest's interface `device` is to have: `addresses` ("10.0.2.2/24") and `gateways`.

    `left` are the addresses that it comes with, where Multipath TCP connections have their first
    subflow.  With `mptcp` each new address is an endpoint for subflows.

    Raises `ParameterError` for a gateway outside the addresses' subnets.
    """

    device: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    left: tuple[str, ...] = ()
    mptcp: bool = True

    def __post_init__(self) -> None:
        for gateway in self.gateways:
            if not any(ipaddress.ip_address(gateway) in own.network for own in self._interfaces()):
                raise ParameterError(
                    f"gateway {gateway} of {', '.join(self.addresses)}",
                    remedy="one of an address's subnet",
                )

    def _interfaces(self) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
        return [ipaddress.ip_interface(each) for each in self.addresses]

    def commands(self) -> list[str]:
        """For `ip -batch`; they may be repeated."""
        said = [f"address flush dev {self.device} scope global"]
        said += [f"address add {each} dev {self.device}" for each in self.addresses]
        for gateway in self.gateways:
            everywhere = "::/0" if ":" in gateway else "0.0.0.0/0"
            said.append(f"route replace {everywhere} via {gateway} dev {self.device}")
        if self.mptcp:
            said.append("mptcp endpoint flush")
            said += [
                f"mptcp endpoint add {own.ip} dev {self.device} subflow"
                for own in self._interfaces()
            ]
            said += [f"mptcp endpoint delete id 0 {each}" for each in self.left]
        return said


async def prepare(vm: Vm) -> None:
    """Have a guest, which is to be moved, ready to be told its new network."""
    await vm.run(_PREPARE)


async def readdress(vm: Vm, network: GuestNetwork) -> None:
    """Give a guest its new network, sooner where it was prepared.  It may be done again.

    Raises `ExperimentError` with what `ip` says when it refuses.
    """
    commands = " ".join(shlex.quote(command) for command in network.commands())
    await vm.run(_SET.format(commands=commands))
