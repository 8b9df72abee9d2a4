"""A real machine: files and commands, reports, its display, its state in a file, how it ends."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from testbed import doctor
from testbed.errors import ExperimentError, FeatureError
from testbed.guests import Machine, QemuVm, find
from testbed.guests.qemu import accelerator
from testbed.kernel import NetworkNamespace

ABSENT = doctor.reason("guests")
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=ABSENT or "not skipped")
DATA = bytes(range(256)) * 1000
MD5 = f"{hashlib.md5(DATA).hexdigest()}  -\n"
COUNT = """
n=0
while echo '{"n": '$n'}'; do n=$((n + 1)); usleep 2000; done >/dev/reports &
"""


def machine(**hardware: object) -> Machine:
    return Machine(find(), name="box", accelerator=accelerator.choose(), **hardware)  # type: ignore[arg-type]


@asynccontextmanager
async def restored(path: Path, hardware: Machine) -> AsyncIterator[QemuVm]:
    here = NetworkNamespace.current()
    try:
        async with await QemuVm.restore(path, hardware, here, log=path.with_suffix(".log")) as vm:
            assert await vm.ready() == ""
            yield vm
    finally:
        here.close()


@pytest.mark.live
def test_a_machine_is_used_saved_and_goes_on_from_what_was_saved(tmp_path: Path) -> None:
    async def main() -> None:
        here, state = NetworkNamespace.current(), tmp_path / "state"
        hardware = machine(display=(320, 200), cpu_limit=2)
        vm = await QemuVm.start(hardware, here, log=tmp_path / "box.log")
        async with vm:
            assert "MemAvailable" in await vm.ready()
            await use(vm)
            picture = tmp_path / "screen.png"
            await vm.screenshot(picture)
            assert picture.read_bytes().startswith(b"\x89PNG")
            vm.limit_cpu(1.5)
            await vm.run(COUNT)
            await vm.lines.line(20)
            await vm.save(state)
            with pytest.raises(ExperimentError, match="not done"):
                await vm.run(":", limit_s=0.2)  # it stands still
        here.close()
        told = [line.json()["n"] for line in vm.lines.received]
        assert told == list(range(len(told)))
        for _clone in range(2):
            async with restored(state, hardware) as clone:
                await clone.lines.line(20)
                goes_on = [line.json()["n"] for line in clone.lines.received]
                assert goes_on == list(range(len(told), len(told) + len(goes_on)))
                assert await clone.run("cat '/opt/a b/data' | md5sum") == MD5
        async with restored(state, hardware) as clone:
            os.kill(clone.process.pid, signal.SIGKILL)
            assert await clone.crashed == "guest box: QEMU was killed by signal 9"
        async with restored(state, hardware) as clone:
            await clone.run("(usleep 1000; poweroff -f) &")
            assert await clone.crashed == "guest box has ended by itself (guest-shutdown)"
            assert [line async for line in clone.lines] == clone.lines.received
        async with restored(state, hardware) as clone:
            with pytest.raises(ExperimentError, match="guest box is gone"):
                await clone.run("echo c >/proc/sysrq-trigger")
            assert "Kernel panic" in await clone.crashed
        assert len(list(tmp_path.glob("state*.log"))) == 10  # two for each machine
        assert "Kernel panic" in (tmp_path / "state-5.log").read_text()

    async def use(vm: QemuVm) -> None:
        await vm.put("/opt/a b/data", DATA)
        await vm.put("/bin/hello", b"#!/bin/sh\necho hello $1\n", executable=True)
        assert await vm.run("hello 'you there'") == "hello you there\n"
        assert await vm.run("tr a-z A-Z", given=b"loud") == "LOUD"
        assert await vm.run("sleep 1000 & echo began") == "began\n"
        assert await vm.run("cat '/opt/a b/data' | md5sum") == MD5

    asyncio.run(main())


@pytest.mark.live
def test_what_a_machine_does_not_have_is_refused() -> None:
    async def main() -> None:
        here = NetworkNamespace.current()
        async with await QemuVm.start(machine(), here) as vm:
            with pytest.raises(FeatureError, match="box has no display; give it a display size"):
                await vm.screenshot(Path("screen.png"))
            with pytest.raises(FeatureError, match="without a limit on processors; give"):
                vm.limit_cpu(0.5)
        here.close()

    asyncio.run(main())
