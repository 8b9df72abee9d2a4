"""Guests without a guest: command lines, the monitor and the agent against fakes, ports."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import ExperimentError, FeatureError, ParameterError, TopologyError
from testbed.guests import Capability, Image, Machine, Port, QemuVm
from testbed.guests.agent import Agent
from testbed.guests.function import _script
from testbed.guests.qemu import accelerator, process, saved
from testbed.guests.qemu.command import Descriptors, command_line
from testbed.guests.qemu.monitor import Event, Monitor
from testbed.guests.reports import Reports

IMAGE = Image("micro", Path("/images/kernel"), Path("/images/initrd"), "6.1.0")


# -- the command line ----------------------------------------------------------------------------


def after(words: list[str], option: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == option]


def test_a_guest_is_a_named_processor_on_a_machine_that_migrates() -> None:
    machine = Machine(IMAGE, 128, macs=("52:54:00:00:00:01",), name="box")
    words = command_line(machine, Descriptors(5, 6, 7, 8, (9,)))
    assert after(words, "-cpu") == ["Nehalem"]
    assert after(words, "-machine") == ["q35"]
    assert after(words, "-m") == ["131080K"]  # not a multiple of 256 KB: see _memory_kb
    assert after(words, "-accel")[0].startswith("tcg,thread=single,tb-size=")
    assert after(words, "-netdev") == ["tap,id=net0,fd=9"]
    assert "virtio-net-pci,netdev=net0,mac=52:54:00:00:00:01,romfile=" in words
    assert "-incoming" not in words


def test_a_target_differs_from_its_source_in_waiting_only() -> None:
    machine = Machine(IMAGE, macs=("52:54:00:00:00:01",), accelerator="kvm")
    source = command_line(machine, Descriptors(5, 6, 7, 8, (9,)))
    target = command_line(machine, Descriptors(5, 6, 7, 8, (9,)), incoming=True)
    assert target == [*source, "-incoming", "defer"]
    assert after(source, "-accel") == ["kvm"]
    assert after(source, "-m") == ["131072K"]


def test_each_interface_takes_a_tap() -> None:
    with pytest.raises(ValueError, match="zip"):
        command_line(Machine(IMAGE, macs=("52:54:00:00:00:01",)), Descriptors(5, 6, 7, 8, ()))


# -- the monitor ---------------------------------------------------------------------------------

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""},
                    "capabilities": []}}  # fmt: skip
STOP = {"event": "STOP", "timestamp": {"seconds": 1700000000, "microseconds": 250000}}

Answer = Callable[[dict[str, Any]], dict[str, Any] | None]


async def fake_qemu(end: socket.socket, answer: Answer, events: list[dict[str, Any]]) -> None:
    """Greet, accept the capabilities, say `events`, then `answer` until that returns None."""
    reader, writer = await asyncio.open_connection(sock=end)

    def say(message: dict[str, Any]) -> None:
        writer.write(json.dumps(message).encode() + b"\r\n")

    say(GREETING)
    while words := await reader.read(1 << 16):  # one command at a time: without line ends
        asked = json.loads(words)
        if asked["execute"] == "qmp_capabilities":
            say({"return": {}})
            for event in events:
                say(event)
        elif (reply := answer(asked)) is not None:
            say({**reply, "id": asked["id"]})
        else:
            break
    writer.close()


def with_monitor(
    answer: Answer, use: Callable[[Monitor], Awaitable[None]], *events: dict[str, Any]
) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        qemu = asyncio.create_task(fake_qemu(theirs, answer, list(events)))
        monitor = await Monitor.open(ours, "box")
        try:
            await asyncio.wait_for(use(monitor), 20)
        finally:
            await monitor.close()
            await qemu

    asyncio.run(main())


def test_the_monitor_returns_what_qemu_says() -> None:
    async def use(monitor: Monitor) -> None:
        assert await monitor.execute("query-status") == {"status": "running"}

    with_monitor(lambda asked: {"return": {"status": "running"}}, use)


def test_a_refusal_names_machine_command_and_reason() -> None:
    refusal = {"error": {"class": "GenericError", "desc": "no such thing"}}

    async def use(monitor: Monitor) -> None:
        with pytest.raises(ExperimentError, match=r"QEMU of box: migrate: no such thing"):
            await monitor.execute("migrate", {"uri": "fd:x"})

    with_monitor(lambda asked: refusal, use)


def test_events_are_kept_with_qemus_time_and_found_also_when_they_came_before() -> None:
    async def use(monitor: Monitor) -> None:
        event = await monitor.event(lambda event: event.name == "STOP")
        assert event == Event("STOP", 1700000000.25, {})
        assert await monitor.event(lambda event: event.name == "STOP") is event

    with_monitor(lambda asked: {"return": {}}, use, STOP)


def test_who_waits_for_an_event_of_a_machine_that_goes_is_told() -> None:
    async def use(monitor: Monitor) -> None:
        waiting = asyncio.create_task(monitor.event(lambda event: event.name == "RESUME"))
        with pytest.raises(ExperimentError, match="QEMU of box is gone"):
            await monitor.execute("query-status")
        with pytest.raises(ExperimentError, match="QEMU of box is gone"):
            await waiting

    with_monitor(lambda asked: None, use)


def test_a_machine_that_never_greets_is_named() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        theirs.close()
        with pytest.raises(ExperimentError, match="QEMU of box does not answer"):
            await Monitor.open(ours, "box")

    asyncio.run(main())


# -- the agent -----------------------------------------------------------------------------------


def with_agent(
    guest: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    use: Callable[[Agent], Awaitable[None]],
) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        playing = asyncio.create_task(guest(reader, writer))  # type: ignore[arg-type]
        agent = await Agent.open(ours, "box")
        try:
            await use(agent)
        finally:
            await agent.close()
            playing.cancel()
            writer.close()

    asyncio.run(main())


async def asked(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Number of the next command, its script and after it what is given to that."""
    word, *numbers = (await reader.readline()).split()
    if word == b"do":
        number, lines = map(int, numbers)
        script = b"".join([await reader.readline() for _line in range(lines)])
        return number, script.removesuffix(b"\n")
    assert word == b"run"
    number, size, given = map(int, numbers)
    return number, await reader.readexactly(size + given)


@pytest.mark.parametrize("times", [1, 500])  # short enough to be read by the line, and not
def test_a_script_goes_whole_and_what_it_said_comes_back(times: int) -> None:
    async def guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"0 0 2\nup")
        number, script = await asked(reader)
        writer.write(b"%d 0 %d\n" % (number, len(script)) + script)

    async def use(agent: Agent) -> None:
        assert await agent.ready(5) == "up"
        script = "echo 'ä'\n\n" * times
        assert await agent.run(script) == script

    with_agent(guest, use)


def test_a_script_that_fails_says_so_with_its_first_line() -> None:
    async def guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, _script = await asked(reader)
        writer.write(b"%d 1 12\nError: a\n^^^" % number)

    async def use(agent: Agent) -> None:
        with pytest.raises(ExperimentError, match=r"guest box: status 1: Error: a$"):
            await agent.run("nft -f -")

    with_agent(guest, use)


def test_a_late_answer_is_not_taken_for_the_next_one() -> None:
    async def guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, _script = await asked(reader)
        second, _script = await asked(reader)
        writer.write(b"%d 0 4\nlate%d 0 5\nright" % (first, second))

    async def use(agent: Agent) -> None:
        with pytest.raises(ExperimentError, match=r"not done after 0 s \(sleep 9\)"):
            await agent.run("sleep 9", limit_s=0.05)
        assert await agent.run("true") == "right"

    with_agent(guest, use)


def test_a_guest_that_goes_while_it_works_is_named() -> None:
    async def guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.close()

    async def use(agent: Agent) -> None:
        with pytest.raises(ExperimentError, match="guest box is gone"):
            await agent.run("true")

    with_agent(guest, use)


def test_a_file_goes_as_the_input_of_what_writes_it() -> None:
    async def guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, words = await asked(reader)
        assert words.endswith(b"chmod 755 '/opt/a b'\x00\n1")
        writer.write(b"%d 0 0\n" % number)

    async def use(agent: Agent) -> None:
        await agent.put("/opt/a b", b"\0\n1", executable=True)

    with_agent(guest, use)


def test_a_guest_that_has_moved_answers_at_the_other_end() -> None:
    async def main() -> None:
        (ours, source), (ours_too, target) = socket.socketpair(), socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=source)
        _reader, writer_too = await asyncio.open_connection(sock=target)
        agent = await Agent.open(ours, "box")
        heir = await agent.successor(ours_too)
        running = asyncio.create_task(agent.run("sleep 1"))
        number, _script = await asked(reader)
        await agent.close()
        writer_too.write(b"%d 0 4\ndone" % number)
        assert await asyncio.wait_for(running, 20) == "done"
        writer_too.close()
        with pytest.raises(ExperimentError, match="guest box is gone"):
            await heir.run("true")
        await heir.close()
        writer.close()

    asyncio.run(main())


# -- reports -------------------------------------------------------------------------------------


def with_reports(use: Callable[[Reports, list[socket.socket]], Awaitable[None]]) -> None:
    """`use` is given reports and our ends of two ports, the second one where the guest goes."""

    async def main() -> None:
        reports, guests = Reports(), []
        for _port in range(2):
            ours, theirs = socket.socketpair()
            reports.attach(ours)
            guests.append(theirs)
        await asyncio.wait_for(use(reports, guests), 20)
        for end in guests:
            end.close()
        assert [line async for line in reports] == reports.received

    asyncio.run(main())


def test_lines_are_whole_and_come_with_the_time_of_their_arrival() -> None:
    async def use(reports: Reports, guests: list[socket.socket]) -> None:
        guests[0].send(b'{"n": 0}\n{"n"')
        first = await reports.line(0)
        assert first is not None
        assert first.json() == {"n": 0}
        assert len(reports.received) == 1
        guests[0].send(b": 1}\n")
        second = await reports.line(1)
        assert second is not None
        assert second.text == '{"n": 1}'
        assert first.time_s <= second.time_s

    with_reports(use)


def test_a_line_may_begin_at_the_source_and_end_at_the_target() -> None:
    async def use(reports: Reports, guests: list[socket.socket]) -> None:
        guests[0].send(b"one\ntw")
        guests[1].send(b"o\nthree\n")  # which is there before anybody has read the source's
        await reports.line(2)
        assert [line.text for line in reports.received] == ["one", "two", "three"]

    with_reports(use)


# -- saved states --------------------------------------------------------------------------------


def test_a_saved_state_of_another_machine_is_refused_by_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "state"
    machine = Machine(IMAGE, 128, name="box")
    path.write_bytes(json.dumps(saved.facts(machine)).encode() + b"\nstream")
    with saved.open_for(machine, path) as state:
        assert state.read() == b"stream"
    with pytest.raises(ParameterError, match=r"another memory_mb \(128, not 256\); save one from"):
        saved.open_for(Machine(IMAGE, 256, name="box"), path)
    path.write_bytes(b"QEVM...")
    with pytest.raises(ParameterError, match="is no saved state"):
        saved.open_for(machine, path)
    with pytest.raises(ParameterError, match="No such file"):
        saved.open_for(machine, tmp_path / "none")


# -- machines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hardware", "complaint"),
    [
        ({"memory_mb": 64}, "guest box: 64 MB of memory for image micro; give at least 128"),
        ({"cpus": 0}, "guest box: 0 processors"),
        ({"cpu_limit": 0}, "guest box: a limit of 0 processors"),
        ({"display": (320, 5)}, "guest box: a display of 320x5"),
    ],
)
def test_what_no_machine_can_be_is_the_users_mistake(
    hardware: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ParameterError, match=complaint):
        Machine(IMAGE, **{"name": "box", **hardware})


def test_a_display_is_part_of_the_machine() -> None:
    machine = Machine(IMAGE, display=(1024, 600), cpus=2)
    words = command_line(machine, Descriptors(5, 6, 7, 8, ()))
    assert "bochs-display,edid=on,xres=1024,yres=600" in after(words, "-device")
    assert after(words, "-smp") == ["2"]


def test_what_a_back_end_cannot_do_is_one_clear_line() -> None:
    class Plain(QemuVm):
        backend = "plain boxes"
        capabilities = frozenset({Capability.SAVE_RESTORE})

    Plain.require(Capability.SAVE_RESTORE)
    with pytest.raises(FeatureError, match=r"^guests on plain boxes lack post-copy migration"):
        Plain.require(Capability.POST_COPY)


def test_logs_of_two_machines_are_never_one_file(tmp_path: Path) -> None:
    for _machine in range(2):
        logs = process._Logs(tmp_path / "vm.log")
        logs.console.write(b"hello")
        logs.console.flush()
        logs.close()
        assert logs.text(logs.console) == "hello"
    names = ["vm-2.log", "vm-2.qemu.log", "vm.log", "vm.qemu.log"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


# -- the accelerator -----------------------------------------------------------------------------


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("place")
def test_kvm_is_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    probes: list[int] = []

    def probe() -> str:
        probes.append(1)
        return "no guest boots on it: it hangs"

    monkeypatch.setattr(accelerator, "_modules", lambda: True)
    monkeypatch.setattr(accelerator.os, "access", lambda path, mode: True)
    monkeypatch.setattr(accelerator.shutil, "which", lambda program: "/bin/sh")
    monkeypatch.setattr(accelerator, "_probe", probe)
    assert accelerator.why_not_kvm() == accelerator.why_not_kvm()
    assert accelerator.why_not_kvm() == "no guest boots on it: it hangs"
    assert len(probes) == 1


def test_without_kvms_modules_nothing_is_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "_modules", lambda: False)
    monkeypatch.setattr(accelerator, "_probe", lambda: pytest.fail("probed"))
    assert accelerator.why_not_kvm() == "no kvm_intel or kvm_amd in this kernel"


# -- functions -----------------------------------------------------------------------------------


def test_a_port_is_one_subnet_and_keeps_its_macs() -> None:
    port = Port("in", "10.9.1.2/30", "vm-in", "10.9.1.1/30")
    assert port.mac("guest") == Port("in", "10.9.1.2/30", "vm-in", "10.9.1.1/30").mac("guest")
    assert port.mac("guest") != port.mac("node")
    assert int(port.mac("node")[:2], 16) & 3 == 2  # local, of one station
    for address in ("10.9.2.2/30", "10.9.1.1/30"):
        with pytest.raises(TopologyError, match="give two addresses of one subnet"):
            Port("in", address, "vm-in", "10.9.1.1/30")


def test_a_fresh_guest_is_told_everything_and_stops_at_the_first_refusal() -> None:
    port = Port("in", "10.9.1.2/30", "vm-in", "10.9.1.1/30")
    script = _script([port], "table ip t { }", {"default": "10.9.1.1"}, {"net/x": 1})
    assert script.splitlines() == [
        "set -e",
        "ip link set eth0 name in",
        "ip addr add 10.9.1.2/30 dev in",
        "ip link set in up",
        "ip route add default via 10.9.1.1",
        "echo 1 >/proc/sys/net/x",
        "nft -f - <<'END-OF-PROGRAM'",
        "table ip t { }",
        "END-OF-PROGRAM",
    ]
