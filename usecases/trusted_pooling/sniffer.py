"""Captures of an interface by tcpdump that are known to be complete.

"Nothing leaked" is worth as much as the capture it is said of.  A capture here is over only when
it holds as many frames as the kernel says the interface carried; if it never does, the trial
fails.  What is in the file is `capture`'s business.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from testbed.errors import ExperimentError, FeatureError
from testbed.run import Recorder

_BUFFER_KIB = "32768"
_START_S, _COMPLETE_S = 10.0, 10.0
_POLL_S = 0.02
_ATTEMPTS = 20
_RECEIVED, _SENT = 1, 9  # packet columns of /proc/net/dev
_FILE_HEADER, _RECORD = 24, struct.Struct("<8xII")


class Sniffer:
    """A running capture; make it with `await Sniffer.start(...)`, end it with `stop`."""

    def __init__(self, node: Any, interface: str, path: Path, *, sent_only: bool) -> None:
        self.node, self.interface, self.path = node, interface, path
        self._columns = (_SENT,) if sent_only else (_RECEIVED, _SENT)
        self._direction = "out" if sent_only else "inout"
        self._before = 0
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    async def start(
        cls,
        node: Any,
        interface: str,
        record: Recorder,
        *,
        name: str,
        sent_only: bool = False,
    ) -> Self:
        """Capture every frame of `interface` in `node`, or what it sends, into the bundle.

        Raises `FeatureError` without tcpdump and `ExperimentError` when it does not start.
        """
        if shutil.which("tcpdump") is None:
            raise FeatureError("tcpdump is not installed", remedy="sudo apt install tcpdump")
        sniffer = cls(node, interface, record.pcap_path(name), sent_only=sent_only)
        record.defer(sniffer.kill)
        for _attempt in range(_ATTEMPTS):
            sniffer._before = sniffer.carried()
            await sniffer._spawn(record.log_path(name))
            if sniffer.carried() == sniffer._before:
                return sniffer
            await sniffer.kill()  # a frame passed while it started, seen or not: again
        raise ExperimentError(f"{interface} of {node.name} is never quiet: cannot begin a capture")

    async def _spawn(self, log: Path) -> None:
        # Frames are handed over in blocks: one at a time they would keep a processor busy.
        argv = ["tcpdump", "-i", self.interface, "-n", "-U"]
        argv += ["-Q", self._direction, "-B", _BUFFER_KIB, "-Z", "root", "-w", str(self.path)]
        with open(log, "wb") as errors:
            self._process = self.node.popen(argv, stdin=subprocess.DEVNULL, stderr=errors)
        deadline = time.monotonic() + _START_S
        while b"listening on" not in log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ExperimentError(
                    f"tcpdump on {self.interface} of {self.node.name} does not start",
                    remedy=f"see {log.name} in the bundle's logs",
                )
            await asyncio.sleep(_POLL_S)

    def carried(self) -> int:
        """Frames that the interface has carried in the captured direction."""
        counters = interface_counters(self.node, self.interface)
        return sum(counters[column] for column in self._columns)

    async def stop(self) -> Path:
        """End the capture when it is complete; its file.  The interface must be quiet by now."""
        deadline = time.monotonic() + _COMPLETE_S
        # It may hold more: frames that the device dropped on their way out are captured before.
        while (held := count_frames(self.path)) < (carried := self.carried() - self._before):
            if time.monotonic() > deadline:
                raise ExperimentError(
                    f"the capture on {self.interface} of {self.node.name} holds {held} of "
                    f"{carried} frames",
                    remedy="use slower links or a less busy machine",
                )
            await asyncio.sleep(_POLL_S)
        await self.kill()
        return self.path

    async def kill(self) -> None:
        """End tcpdump, whatever it has."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            await asyncio.get_running_loop().run_in_executor(None, self._process.wait)


def interface_counters(node: Any, interface: str) -> list[int]:
    """The columns of an interface in /proc/net/dev: bytes and packets received 0, 1, sent 8, 9."""
    with node.netns:
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    names = (line.partition(":") for line in lines)
    return next([int(n) for n in rest.split()] for name, _, rest in names
                if name.strip() == interface)  # fmt: skip


def count_frames(path: Path) -> int:
    """Whole frames in a capture file that may still be growing."""
    count, offset = 0, _FILE_HEADER
    data = path.read_bytes() if path.exists() else b""
    while offset + 16 <= len(data):
        offset += 16 + _RECORD.unpack_from(data, offset)[0]
        count += offset <= len(data)
    return count
