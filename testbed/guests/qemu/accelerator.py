"""KVM where a guest really boots on it, else translation (TCG): found by booting one, once.

That /dev/kvm exists says little: inside some virtual machines it opens, and then a guest hangs.
What was found is kept in the cache for this kernel, this boot and this QEMU.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import shutil
from pathlib import Path

from testbed import cache
from testbed.errors import TestbedError
from testbed.guests.images import Image, find, missing
from testbed.guests.machine import Machine
from testbed.guests.qemu.command import QEMU
from testbed.guests.qemu.vm import QemuVm
from testbed.kernel import NetworkNamespace
from testbed.kernel.namespaces import in_new_thread

_PROBE_LIMIT_S = 10.0


@functools.cache
def choose() -> str:
    """ "kvm" or "tcg"."""
    return "tcg" if why_not_kvm() else "kvm"


def why_not_kvm() -> str:
    """Why guests are translated here; "" where KVM carries them."""
    if not _modules():
        return "no kvm_intel or kvm_amd in this kernel"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm may not be opened"
    kept, key = cache.folder() / "accelerator.json", _circumstances()
    if kept.is_file() and (known := json.loads(kept.read_text())).get("key") == key:
        return str(known["why_not"])
    why_not = _probe()
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"key": key, "why_not": why_not}))
    return why_not


def _modules() -> bool:
    return any(Path("/sys/module", name).is_dir() for name in ("kvm_intel", "kvm_amd"))


def _circumstances() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    program = os.stat(shutil.which(QEMU) or "/")
    return f"{os.uname().release} {boot} {os.geteuid()} {program.st_size} {program.st_mtime_ns}"


def _probe() -> str:
    image = find("micro" if missing("function") else "function")
    try:
        in_new_thread(lambda: asyncio.run(_boot(image)))  # the caller may be in a loop of its own
    except TestbedError as error:
        return f"no guest boots on it: {error.message}"
    return ""


async def _boot(image: Image) -> None:
    here = NetworkNamespace.current()
    try:
        machine = Machine(image, name="probe", accelerator="kvm")
        async with await QemuVm.start(machine, here) as vm:
            await vm.ready(_PROBE_LIMIT_S)
    finally:
        here.close()
