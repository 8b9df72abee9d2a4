"""nftables through its library: rules of one namespace, complaints, no descriptors left."""

from __future__ import annotations

import errno
import os

import pytest

from testbed.errors import KernelError
from testbed.kernel import NetworkNamespace
from testbed.kernel.nftables import Nftables

TABLE = """
table inet t {
    counter seen { }
    set peers { type ipv4_addr; flags timeout; }
}
"""


def names(nft: Nftables, kind: str) -> list[str]:
    return [each[kind]["name"] for each in nft.ask("list ruleset") if kind in each]


@pytest.mark.live
def test_rules_belong_to_the_namespace_they_were_loaded_in() -> None:
    other = NetworkNamespace.create()
    with Nftables(other) as there, Nftables() as here:
        there.run(TABLE)
        assert names(there, "counter") == ["seen"]
        assert names(here, "table") == []
        assert "counter seen" in there.run("list table inet t")


@pytest.mark.live
def test_commands_are_carried_out_all_or_none() -> None:
    with Nftables() as nft:
        nft.run(TABLE)
        with pytest.raises(KernelError, match="No such file") as refused:
            nft.run("add counter inet t more\nadd rule inet t nowhere drop")
        assert refused.value.errno == errno.ENOENT
        assert names(nft, "counter") == ["seen"]


@pytest.mark.live
def test_what_is_not_understood_is_told_in_one_line() -> None:
    with Nftables() as nft, pytest.raises(KernelError, match="syntax error") as refused:
        nft.run("add rulex\nadd table inet t")
    assert refused.value.errno == errno.EINVAL
    assert "\n" not in refused.value.message


@pytest.mark.live
def test_elements_come_and_go() -> None:
    with Nftables() as nft:
        nft.run(TABLE)
        nft.run("add element inet t peers { 10.0.0.1 timeout 1h, 10.0.0.2 }")
        nft.run("delete element inet t peers { 10.0.0.2 }")
        (peers,) = (each["set"] for each in nft.ask("list set inet t peers") if "set" in each)
        assert [each["elem"]["val"] for each in peers["elem"]] == ["10.0.0.1"]


@pytest.mark.live
def test_closing_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with Nftables() as nft:
            nft.run("add table inet t")
            nft.run("delete table inet t")
    assert len(os.listdir("/proc/self/fd")) == before
