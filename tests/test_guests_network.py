"""A guest's new network: what it is told, and a guest that is told so, prepared and not."""

from __future__ import annotations

import asyncio

import pytest

from testbed import doctor
from testbed.errors import ExperimentError, ParameterError
from testbed.guests import Machine, QemuVm, images
from testbed.guests.network import GuestNetwork, prepare, readdress
from testbed.guests.tap import Tap
from testbed.kernel import NetworkNamespace

ABSENT = doctor.reason("guests")
HOME = GuestNetwork(device="eth0", addresses=("10.1.0.2/24",), gateways=("10.1.0.1",))
AWAY = GuestNetwork(
    device="eth0", addresses=("10.2.0.2/24",), gateways=("10.2.0.1",), left=("10.1.0.2",)
)


def test_the_old_address_goes_before_the_new_one_comes() -> None:
    words = [command.split()[:2] for command in AWAY.commands()]
    assert words.index(["address", "flush"]) < words.index(["address", "add"])
    assert words[-1] == ["mptcp", "endpoint"]
    plain = GuestNetwork(
        device="eth0", addresses=("10.2.0.2/24",), gateways=("10.2.0.1",), mptcp=False
    )
    assert not any("mptcp" in command for command in plain.commands())


def test_a_gateway_of_another_subnet_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"gateway 10\.3\.0\.1 of 10\.2\.0\.2/24; one of"):
        GuestNetwork(device="eth0", addresses=("10.2.0.2/24",), gateways=("10.3.0.1",))


@pytest.mark.live
@pytest.mark.skipif(bool(ABSENT), reason=ABSENT or "not skipped")
def test_a_guest_gets_its_new_network_and_the_old_one_again() -> None:
    async def use() -> None:
        here = NetworkNamespace.current()
        machine = Machine(images.find("micro"), 128, macs=("52:54:00:00:00:07",))
        async with await QemuVm.start(machine, here, [Tap("guest-tap", here)]) as vm:
            await vm.ready()
            await vm.run("ip link set eth0 up")
            for network, prepared in ((HOME, False), (AWAY, True), (AWAY, False), (HOME, True)):
                if prepared:
                    await prepare(vm)
                    await prepare(vm)  # a move that failed left it so
                await readdress(vm, network)
                address = network.addresses[0]
                assert (await vm.run("ip -4 -o address show eth0")).split()[3] == address
                assert network.gateways[0] in await vm.run("ip route show default")
                assert address.split("/")[0] in await vm.run("ip mptcp endpoint show")
            await prepare(vm)
            nowhere = GuestNetwork(
                device="eth9", addresses=("10.1.0.2/24",), gateways=("10.1.0.1",)
            )
            with pytest.raises(ExperimentError, match=r"eth9"):
                await readdress(vm, nowhere)
            await readdress(vm, HOME)
        here.close()

    asyncio.run(use())
