"""Xen without Xen: what xl is told and what it says, consoles, domains of a fake dom0."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xen_lab import fake_dom0, orders

from testbed.errors import ExperimentError, FeatureError, ParameterError, TopologyError
from testbed.guests import Capability, Image, Machine
from testbed.guests.qemu.command import Descriptors, command_line
from testbed.guests.xen import host as hosts
from testbed.guests.xen import xl
from testbed.guests.xen.config import cap, configuration
from testbed.guests.xen.console import Answer, Report, Said, Splitter, Text
from testbed.guests.xen.host import LocalHost
from testbed.guests.xen.vm import XenVm

IMAGE = Image("micro", Path("/images/kernel"), Path("/images/initrd"), "6.1.0")
MACS = ("00:16:3e:00:00:01", "00:16:3e:00:00:02")


def configured(**hardware: object) -> dict[str, str]:
    machine = Machine(IMAGE, **{"name": "box", "memory_mb": 128, **hardware})  # type: ignore[arg-type]
    bridges = ["left", "right"][: len(machine.macs)]
    told = configuration(
        machine, uuid="u-u", kernel="/k", initrd="/i", bridges=bridges, script="vif-x"
    )
    return dict(line.split(" = ", 1) for line in told.splitlines())


# -- what xl is told -----------------------------------------------------------------------------


def test_a_machine_is_told_to_xl() -> None:
    told = configured(macs=MACS, cpus=2, cpu_limit=0.25)
    assert (told["type"], told["uuid"]) == ('"pv"', '"u-u"')
    assert (told["kernel"], told["ramdisk"]) == ('"/k"', '"/i"')
    assert (told["memory"], told["maxmem"], told["vcpus"], told["cap"]) == ("128", "128", "2", "25")
    assert told["vif"] == (
        f'["mac={MACS[0]},bridge=left,script=vif-x", "mac={MACS[1]},bridge=right,script=vif-x"]'
    )
    assert "console=hvc0 terminal=/dev/hvc0" in told["cmdline"]


def test_a_domain_that_crashed_is_kept_and_none_boots_again() -> None:
    told = configured()
    assert (told["on_crash"], told["on_reboot"]) == ('"preserve"', '"destroy"')
    assert (told["cap"], told["vif"]) == ("0", "[]")


@pytest.mark.parametrize("name", ["", "a b", 'a"', "a/b", "x" * 65])
def test_names_that_xl_does_not_take(name: str) -> None:
    with pytest.raises(TopologyError, match="a Xen guest called"):
        configured(name=name)


def test_each_interface_has_a_bridge() -> None:
    machine = Machine(IMAGE, 128, MACS, name="box")
    with pytest.raises(TopologyError, match="2 interfaces, 1 bridges"):
        configuration(
            machine, uuid="u-u", kernel="/k", initrd="/i", bridges=["left"], script="vif-x"
        )


def test_limits_are_percent_of_a_processor() -> None:
    assert [cap(limit) for limit in (None, 0.01, 0.5, 2)] == [0, 1, 50, 200]
    with pytest.raises(ParameterError, match="a limit of 0 processors"):
        cap(0)


def test_a_hypervisor_boots_with_the_kernel_and_the_initrd_as_its_modules() -> None:
    image = Image("xen", Path("/a,b/k"), Path("/a/i"), "6.1.0", hypervisor=Path("/a/x"))
    words = command_line(Machine(image, 1280), Descriptors(5, 6, 7, 8, ()))
    after = dict(itertools.pairwise(words))
    assert after["-kernel"] == "/a/x"
    kernel, initrd = after["-initrd"].rsplit(",", 1)
    assert kernel.startswith("/a,,b/k console=hvc0")
    assert initrd == "/a/i"
    assert "dom0_mem=768M,max:768M" in after["-append"]


# -- what xl says --------------------------------------------------------------------------------

LISTED = """Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0   768     1     r-----      31.5
my box                                       3   127     2     --psc-       0.4
"""


def test_domains_are_read_from_a_list() -> None:
    dom0, box = xl.domains(LISTED)
    assert (dom0.name, dom0.number, dom0.state, dom0.crashed) == ("Domain-0", 0, "r", False)
    assert box == xl.Domain("my box", 3, 127, 2, "psc", 0.4)
    assert box.crashed
    assert xl.domains("nonsense\n\n") == []


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("Domain 1 has shut down, reason code 3 0x3\nAction is preserve\n", "crashed"),
        ("Domain 1 has shut down, reason code 0 0x0\nDomain 1 has been destroyed.", "powered off"),
        ("Waiting\nDomain 1 has been destroyed.\n", "was destroyed"),
        ("Domain 1 has shut down, reason code 9 0x9", "shut down (reason 9)"),
        ("", "is gone"),
    ],
)
def test_why_a_domain_ended(log: str, why: str) -> None:
    assert xl.ended(log) == why


def test_trouble_is_one_line_without_its_place_in_the_source() -> None:
    said = """Parsing config from /tmp/box
libxl: error: libxl_create.c:662:libxl__domain_make: Domain 7:no memory for it
libxl: error: libxl_create.c:1:f: Domain 7:cannot (re-)build domain: -3
"""
    assert xl.trouble(said) == "no memory for it"
    said = """libxl: error: libxl_exec.c:117:f: /etc/xen/scripts/vif online [351] exited with 1
libxl: error: libxl_device.c:1351:g: script: bridge br7: no such device
"""
    assert xl.trouble(said) == "script: bridge br7: no such device"
    assert xl.trouble("failed to free memory for the domain\n") == (
        "failed to free memory for the domain"
    )
    assert xl.trouble("") == "xl gave no reason"


# -- the console ---------------------------------------------------------------------------------

WORDS: list[Said] = [
    Text(b"[    0.1] Linux 6.1\r\n"),
    Answer(b"0 0 8\n1 2 3\nx\n"),  # what it said looks like the beginning of another
    Report(b'{"n": 1}\n'),
    Text(b"12 monkeys\n"),
    Answer(b"3 1 0\n"),
    Report(b"\n"),
    Text(b"[    9.9] Kernel panic"),
]


def joined(said: list[Said]) -> list[Said]:
    """Parts of the same kind, put together."""
    whole: list[Said] = []
    for each in said:
        if whole and type(whole[-1]) is type(each) and not isinstance(each, Report):
            whole[-1] = type(each)(whole[-1].data + each.data)
        else:
            whole.append(each)
    return whole


@given(st.lists(st.integers(1, 30)))
def test_a_console_is_told_apart_however_it_comes(sizes: list[int]) -> None:
    parts = [b"report " + word.data if isinstance(word, Report) else word.data for word in WORDS]
    data = b"".join(parts)
    splitter, said = Splitter(), []
    for size in [*sizes, len(data)]:
        said += splitter.feed(data[:size])
        data = data[size:]
    said += splitter.end()
    assert joined(said) == joined(WORDS)


def test_a_guest_that_dies_while_it_answers_leaves_its_words() -> None:
    splitter = Splitter()
    assert list(splitter.feed(b"1 0 100\nhalf")) == [Answer(b"1 0 100\n"), Answer(b"half")]
    assert list(splitter.end()) == []
    assert list(splitter.feed(b"text")) == []
    assert list(splitter.end()) == [Text(b"text")]


# -- domains of a fake dom0 ----------------------------------------------------------------------


def in_dom0(
    folder: Path, patch: pytest.MonkeyPatch, use: Callable[[LocalHost], Awaitable[None]]
) -> None:
    """A local Xen host whose programs are fakes; everything between them and us is not."""
    fake_dom0(folder)
    (folder / "capabilities").write_text("control_d\n")
    with patch.context() as patched:
        patched.setenv("PATH", f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin")
        patched.setattr(hosts, "_CAPABILITIES", folder / "capabilities")
        patched.setattr(LocalHost, "logs", str(folder))
        asyncio.run(asyncio.wait_for(_use(use), 60))  # type: ignore[arg-type]


async def _use(use: Callable[[LocalHost], Awaitable[None]]) -> None:
    await use(LocalHost())


BOX = Machine(IMAGE, 128, MACS[:1], name="box")


@pytest.mark.live
def test_a_domain_lives_on_this_machines_dom0(tmp_path: Path) -> None:
    async def use(host: LocalHost) -> None:
        async with await XenVm.start(BOX, host, ["left"], log=tmp_path / "box.log") as vm:
            assert await vm.ready() == "up\n"
            assert await vm.run("cat; echo out; exit 0", given=b"in\n") == "in\nout\n"
            with pytest.raises(ExperimentError, match="guest box: status 3: no"):
                await vm.run("echo no; exit 3")
            with pytest.raises(ExperimentError):
                await vm.run("report seven")
            line = await vm.lines.line(0)
            assert line is not None
            assert line.text == "seven"
            assert vm.last_words() == "[    0.1] Linux"
            assert await vm.domain() == xl.Domain("box", 7, 128, 2, "b", 12.5)
            await vm.limit_cpu(0.5)
            assert not vm.crashed.done()
        assert orders(tmp_path) == ["create", "sched-credit2 -d 7 -c 50", "destroy 7"]
        assert 'kernel = "/images/kernel"' in (tmp_path / "configuration").read_text()
        assert (tmp_path / "box.log").read_bytes() == b"[    0.1] Linux\r\n"
        assert not vm.crashed.done()
        assert list(Path("/run").glob("liquidnet-xen*")) == []

    with pytest.MonkeyPatch.context() as patch:
        in_dom0(tmp_path, patch, use)


@pytest.mark.live
def test_a_domain_is_saved_and_restored(tmp_path: Path) -> None:
    async def use(host: LocalHost) -> None:
        state = tmp_path / "a state"
        async with await XenVm.start(BOX, host, ["left"]) as vm:
            await vm.ready()
            await vm.save(state)
            assert not vm.crashed.done()
            with pytest.raises(ExperimentError, match="guest box is gone"):
                await vm.run("true")
            async with await XenVm.restore(state, BOX, host, ["left"]) as again:
                assert await again.ready() == ""
                await vm.close()  # which has no domain any more: not the one called like it
                assert await again.run("echo there") == "there\n"
        with pytest.raises(ExperimentError, match="guest box on this machine: Can't open restore"):
            await XenVm.restore(tmp_path / "none", BOX, host, ["left"])

    with pytest.MonkeyPatch.context() as patch:
        in_dom0(tmp_path, patch, use)


@pytest.mark.live
def test_how_a_domain_ended_is_said_at_once(tmp_path: Path) -> None:
    async def use(host: LocalHost) -> None:
        async with await XenVm.start(BOX, host, ["left"]) as vm:
            await vm.ready()
            with pytest.raises(ExperimentError, match="guest box is gone"):
                await vm.run("panic")
            assert await vm.crashed == (
                "guest box crashed: [    9.9] Kernel panic - not syncing: asked for"
            )
        async with await XenVm.start(BOX, host, ["left"]) as vm:
            await vm.ready()
            await host.run("xl destroy 7")
            assert await vm.crashed == "guest box was destroyed"

    with pytest.MonkeyPatch.context() as patch:
        in_dom0(tmp_path, patch, use)


@pytest.mark.live
def test_what_xl_refuses_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    async def use(host: LocalHost) -> None:
        large = Machine(IMAGE, 4000, MACS[:1], name="box")
        with pytest.raises(ExperimentError) as refused:
            await XenVm.start(large, host, ["left"])
        assert str(refused.value) == "guest box on this machine: no memory for it"
        assert orders(tmp_path) == ["create"]
        assert list(Path("/run").glob("liquidnet-xen*")) == []
        with pytest.raises(ExperimentError, match="this machine: status 2: no"):
            await host.run("echo no; exit 2")
        with pytest.raises(ExperimentError, match=r"this machine is not done after 0 s \(sleep 9"):
            await host.run("sleep 9", limit_s=0.2)

    with pytest.MonkeyPatch.context() as patch:
        in_dom0(tmp_path, patch, use)


@pytest.mark.live
@pytest.mark.parametrize(("state", "then"), [("slow", []), ("stuck", ["destroy 7"])])
def test_who_gives_up_while_xl_is_at_work_leaves_nothing(
    tmp_path: Path, state: str, then: list[str]
) -> None:
    (tmp_path / state).touch()

    async def use(host: LocalHost) -> None:
        starting = asyncio.create_task(XenVm.start(BOX, host, ["left"]))
        await host.run(f"until [ -e {tmp_path}/{state}.at ]; do sleep 0.01; done")
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert orders(tmp_path) == ["create", *then]
        assert list(Path("/run").glob("liquidnet-xen*")) == []
        ended = f"while kill -0 $(cat {tmp_path}/{state}.at) 2>/dev/null; do sleep 0.01; done"
        await host.run(ended)

    with pytest.MonkeyPatch.context() as patch:
        in_dom0(tmp_path, patch, use)


# -- what it cannot do ---------------------------------------------------------------------------


@pytest.mark.parametrize("what", [Capability.LIVE_MIGRATION, Capability.POST_COPY])
def test_live_migration_is_refused_in_one_line(what: Capability) -> None:
    with pytest.raises(FeatureError) as refused:
        XenVm.require(what)
    assert str(refused.value) == (
        f"guests on Xen lack {what.value}; save it, copy what was saved, restore it there"
    )


def test_a_machine_with_a_display_is_refused(tmp_path: Path) -> None:
    async def use(host: LocalHost) -> None:
        with pytest.raises(FeatureError, match="guests on Xen lack a display"):
            await XenVm.start(Machine(IMAGE, 128, display=(320, 200)), host)

    with pytest.MonkeyPatch.context() as patch:
        in_dom0(tmp_path, patch, use)


def test_a_machine_that_is_no_dom0_says_so(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hosts, "_CAPABILITIES", tmp_path / "none")
        with pytest.raises(FeatureError, match="no Xen here: this machine is no dom0; apt-get"):
            LocalHost()
