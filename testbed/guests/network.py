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
    """What a guest's interface `device` is to have: `address` ("10.0.2.2/24") and `gateway`.

    `left` is the address that it comes with, where Multipath TCP connections have their first
    subflow; "" for none.  With `mptcp` the new address is an endpoint for subflows.

    Raises `ParameterError` for a gateway outside the address's subnet.
    """

    device: str
    address: str
    gateway: str
    left: str = ""
    mptcp: bool = True

    def __post_init__(self) -> None:
        if ipaddress.ip_address(self.gateway) not in ipaddress.ip_interface(self.address).network:
            raise ParameterError(
                f"gateway {self.gateway} of {self.address}", remedy="one of the address's subnet"
            )

    def commands(self) -> list[str]:
        """For `ip -batch`; they may be repeated."""
        address = ipaddress.ip_interface(self.address).ip
        said = [
            f"address flush dev {self.device}",
            f"address add {self.address} dev {self.device}",
            f"route replace default via {self.gateway} dev {self.device}",
        ]
        if self.mptcp:
            said += [
                "mptcp endpoint flush",
                f"mptcp endpoint add {address} dev {self.device} subflow",
            ]
            said += [f"mptcp endpoint delete id 0 {self.left}"] if self.left else []
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
