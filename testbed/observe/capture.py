"""Packets of one interface into a ring of files, by dumpcap (of Wireshark).

dumpcap works for an ordinary user in a sandbox, where tcpdump cannot give up its privileges.  It
says when it captures and, at its end, what it dropped.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import time
from typing import Any, Self

from testbed.errors import ExperimentError, FeatureError
from testbed.observe.settings import Settings
from testbed.run.recorder import Recorder

_READY_S, _STOP_S = 30.0, 5.0
_READY = "File: "  # said when the interface is open and the first file is there
_COUNT = re.compile(r"received/dropped on interface '.*': (\d+)/(\d+)")
_BUFFER_MIB = "32"
_WHOLE = 262_144
_HAND_OVER_S = 0.25  # the time after which dumpcap is handed packets, however few (its own)


class Capture:
    """A running capture; make it with `await Capture.start(...)`."""

    def __init__(self, name: str, record: Recorder, process: subprocess.Popen[bytes]) -> None:
        self._name, self._record, self._process = name, record, process
        self._lines: list[str] = []
        self._ready = asyncio.Event()
        self._stopping = False
        self._life = asyncio.ensure_future(self._listen())

    @classmethod
    async def start(cls, intf: Any, name: str, record: Recorder, settings: Settings) -> Self:
        """Capture on `intf`, called `name`, from now until the trial ends."""
        if shutil.which("dumpcap") is None:
            raise FeatureError("dumpcap is not installed", remedy="apt-get install tshark")
        ring = settings.ring
        argv = ["dumpcap", "-i", intf.name, "-q", "-P", "-B", _BUFFER_MIB]
        argv += ["-s", str(settings.snap or _WHOLE)]
        argv += ["-b", f"filesize:{ring.file_bytes // 1000}", "-b", f"files:{ring.files}"]
        argv += ["-w", str(record.pcap_path(name))]
        process = intf.node.popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        capture = cls(name, record, process)
        record.defer(capture.stop)
        await capture._begin()
        return capture

    async def _begin(self) -> None:
        try:
            await asyncio.wait_for(self._ready.wait(), _READY_S)
        except TimeoutError:
            raise self._failure(f"did not begin within {_READY_S:g} s") from None
        if self._life.done():
            raise self._failure("did not begin")
        self._record.event("capture", interface=self._name, unix_time=time.time())

    async def _listen(self) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _protocol = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._process.stderr
        )
        while line := (await reader.readline()).decode(errors="replace"):
            self._lines.append(line.strip())
            if line.startswith(_READY):
                self._ready.set()
        transport.close()
        self._ready.set()
        if not self._stopping:
            self._record.fail(self._failure("ended"))

    def _failure(self, how: str) -> ExperimentError:
        said = [line for line in self._lines if line]
        return ExperimentError(f"the capture on {self._name} {how}: {said[-1] if said else '?'}")

    async def stop(self) -> None:
        """End it, and record how many packets it took and lost."""
        await asyncio.sleep(2 * _HAND_OVER_S)  # what came last is still the kernel's
        self._stopping = True
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        await asyncio.wait({self._life}, timeout=_STOP_S)
        self._process.kill()
        self._process.wait()
        await asyncio.wait({self._life})
        counts = next(filter(None, map(_COUNT.search, self._lines)), None)
        if counts is not None:
            self._record.result("capture.packets", int(counts[1]), "packets", self._name)
            self._record.result("capture.drops", int(counts[2]), "packets", self._name)
