"""Images in use: what a guest finds in them."""

from __future__ import annotations

import asyncio
import zipfile
from pathlib import Path

import pytest

from testbed import doctor
from testbed.guests import Machine, QemuVm, find
from testbed.guests.qemu import accelerator
from testbed.kernel import NetworkNamespace

ABSENT = doctor.reason("guests")
PROGRAM = """
import asyncio, ctypes, json, mmap, socket, struct, urllib.parse
for name in "libopenh264.so.7", "libyuv.so.0":
    ctypes.CDLL(name)
socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).close()  # MPTCP
print(json.dumps({"it": "works"}))
"""


@pytest.mark.live
@pytest.mark.skipif(bool(ABSENT), reason=ABSENT or "not skipped")
def test_a_small_machine_has_the_tools_of_a_host(tmp_path: Path) -> None:
    package = tmp_path / "program.pyz"
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", PROGRAM)

    async def use() -> None:
        here = NetworkNamespace.current()
        micro = Machine(find("micro"), name="box", accelerator=accelerator.choose())
        async with await QemuVm.start(micro, here) as vm:
            await vm.ready()
            await vm.put("/run/program.pyz", package.read_bytes())
            assert await vm.run("python3 /run/program.pyz") == '{"it": "works"}\n'
            assert "iproute2" in await vm.run("ip -V")
            assert "subflows" in await vm.run("ip mptcp limits")
            assert "Recv-Q" in await vm.run("ss -Mtn")
            assert await vm.run("nft list tables") == ""
        here.close()

    asyncio.run(use())
