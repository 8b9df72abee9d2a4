"""Real guests: booted, forwarding, migrated with live connections, and failures on the way."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from guests_lab import PORTS, Conversation, Platforms, prepare, running, steer

from testbed import doctor
from testbed.errors import ExperimentError, ParameterError
from testbed.guests import MigrationOptions, QemuVm, VmFunction
from testbed.network import Network
from testbed.sandbox import Sandbox

ABSENT = doctor.reason("guests")
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=ABSENT or "not skipped")


def on_platforms(use: Callable[[Network], Awaitable[None]], bw: float) -> None:
    with Network(Platforms(bw=bw)) as net:
        prepare(net)
        asyncio.run(use(net))


def interfaces(net: Network, node: str) -> str:
    said: str = net[node].cmd("ip -o link")
    return said


@pytest.mark.live
def test_live_connections_go_on_where_the_function_has_gone() -> None:
    async def use(net: Network) -> None:
        async with running(net) as function:
            conversations = [await Conversation.start(net) for _ in range(5)]
            for conversation in conversations:
                await conversation.exchange(b"before")
            moved: list[int] = []

            def switch() -> None:
                steer(net, 2)
                moved.append(1)

            talking = asyncio.create_task(talk(conversations[0]))
            report = await function.migrate(net["p2"].netns, "10.3.0.2", on_resume=switch)
            assert await talking > 1
            for conversation in conversations:
                await conversation.exchange(b"after" * 1000)
                conversation.close()
            assert moved == [1]
            assert 0 < report.downtime_s < report.total_s
            assert report.bytes > report.pages * 4096  # each page whole, and what describes it
            assert "vm-in" in interfaces(net, "p2")
            assert "vm-in" not in interfaces(net, "p1")
            said = await function.run("cat /proc/sys/net/netfilter/nf_conntrack_count")
            assert int(said) >= len(conversations)
        assert "vm-in" not in interfaces(net, "p2")

    async def talk(conversation: Conversation) -> int:
        """Words until the connection was seen to pass p2; how many there were."""
        words = 0
        while conversation.server.fileno() >= 0 and words < 10:
            words += 1
            await conversation.exchange(b"word")
            await asyncio.sleep(0.05)
        return words

    on_platforms(use, bw=500)


@pytest.mark.live
def test_a_migration_that_fails_leaves_the_guest_where_it_was() -> None:
    async def use(net: Network) -> None:
        async with running(net) as function:
            conversation = await Conversation.start(net)
            source = function.vm
            with pytest.raises(ExperimentError, match=r"not done after 0 s \(it goes on where"):
                await function.migrate(
                    net["p2"].netns, "10.3.0.2", options=MigrationOptions(limit_s=0.3)
                )
            await conversation.exchange(b"still here")
            with pytest.raises(ExperimentError, match=r"migration of vm to 10\.3\.0\.2: .*goes on"):
                await asyncio.gather(
                    function.migrate(net["p2"].netns, "10.3.0.2"), kill_target(net, source)
                )
            await conversation.exchange(b"still here")
            with pytest.raises(ExperimentError, match=r"goes on where it was"):
                await function.migrate(net["p2"].netns, "10.3.0.99")  # not an address of p2
            await conversation.exchange(b"still here")
            conversation.close()
            assert function.vm is source
            assert "vm-in" not in interfaces(net, "p2")

    async def kill_target(net: Network, source: QemuVm) -> None:
        """Kill the other QEMU when memory is on its way to it."""
        while (await source.monitor.execute("query-migrate")).get("status") != "active":
            await asyncio.sleep(0.01)
        (pid,) = set(qemus()) - {source.process.pid}
        subprocess.run(["kill", "-9", str(pid)], check=True)

    on_platforms(use, bw=20)


def qemus() -> list[int]:
    """Process numbers of the QEMUs in this sandbox."""
    found = []
    for file in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if file.read_text().startswith("qemu-system"):
                found.append(int(file.parent.name))
    return found


@pytest.mark.live
def test_what_a_guest_refuses_and_why_it_died_is_said_in_one_line() -> None:
    async def use(net: Network) -> None:
        async with running(net) as function:
            with pytest.raises(ExperimentError, match=r"guest vm: status 1: .*Error: syntax error"):
                await function.run("echo nonsense | nft -f -")
            with pytest.raises(ExperimentError, match="guest vm is gone"):
                await function.run("echo c >/proc/sysrq-trigger")
            await asyncio.to_thread(function.vm.process.wait)
            assert "Kernel panic" in function.vm.last_words()
        with pytest.raises(ParameterError, match="64 MB of memory for image function"):
            await VmFunction.boot(net["p1"].netns, PORTS, "", memory_mb=64)
        assert "vm-in" not in interfaces(net, "p1")
        assert qemus() == []

    on_platforms(use, bw=100)


START = """
import asyncio, sys
from testbed.guests import MigrationOptions, Machine, QemuVm, find
from testbed.kernel import NetworkNamespace

async def main():
    machine = Machine(find(), name=sys.argv[1])
    async with await QemuVm.start(machine, NetworkNamespace.current()):
        print("started", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_guest_ends_with_its_sandbox() -> None:
    name = f"guest-of-{Path('/proc/self').resolve().name}"
    with Sandbox() as sandbox:
        child = sandbox.popen([sys.executable, "-c", START, name], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"started\n"
        assert named(name)
        sandbox.close()
        child.wait()
        child.stdout.close()
    assert not named(name)


def named(name: str) -> bool:
    """Is there a QEMU with this name on the machine?"""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_bytes().split(b"\0")
            if words[0] == b"qemu-system-x86_64" and name.encode() in words:
                return True
    return False
