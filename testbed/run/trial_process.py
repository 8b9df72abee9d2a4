"""The process of one trial as the runner sees it: start it in a sandbox, listen, end it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.observe.settings import Settings
from testbed.run.bundle import write_file
from testbed.run.usecase import Trial
from testbed.sandbox import Sandbox

_LAST_WORDS_S = 8.0  # for a trial that is asked to end, to keep what it has


class Observer:
    """Who is told how a run goes; this one looks away."""

    def trial_started(self, trial: Trial, number: int, total: int) -> None:
        """Trial `number` (from 0) of `total` begins."""

    def trial_progress(self, fraction: float, text: str) -> None:
        """How far it is."""

    def trial_ended(self, trial: Trial, error: str) -> None:
        """It ended; `error` is "" when it came to its end."""


class TrialProcess:
    """The process of one trial and its sandbox."""

    def __init__(
        self,
        trial: Trial,
        folder: Path,
        *,
        use_case: str,
        folders: tuple[str, ...],
        parameters: Mapping[str, Any],
        limit_s: float,
        observe: Settings,
    ) -> None:
        self._spec = {
            "use_case": use_case,
            "folders": folders,
            "parameters": parameters,
            "trial": dataclasses.asdict(trial),
            "folder": str(folder.resolve()),
            "observe": observe.as_dict(),
        }
        self._limit_s = limit_s
        self._log = folder / "logs" / f"{trial.label}-trial.log"
        self._buffer = b""
        self._answer: dict[str, Any] | None = None

    def run(self, observer: Observer) -> dict[str, Any]:
        """Run the trial; its last message ("done" or "error"), or one that says how it died."""
        with Sandbox() as sandbox:
            process = self._start(sandbox)
            try:
                late = not self._listen(process, observer)
            except KeyboardInterrupt:
                self._ask_to_end(process)
                raise
            finally:
                if process.stdout is not None:
                    process.stdout.close()
            if late:
                return {"kind": "error", "message": self._too_long()}
            process.wait()
        return self._answer or {"kind": "error", "message": self._died(process.returncode)}

    def _start(self, sandbox: Sandbox) -> subprocess.Popen[bytes]:
        spec = self._log.with_suffix(".json")
        write_file(spec, json.dumps(self._spec, indent=1) + "\n")
        with open(self._log, "wb") as log:
            # its own session: Ctrl-C is ours alone, the trial's programs must not see it
            return sandbox.popen(
                [sys.executable, "-m", "testbed.run.trial", str(spec)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _listen(self, process: subprocess.Popen[bytes], observer: Observer) -> bool:
        """Hand messages on until the trial closes its output; False when it takes too long."""
        assert process.stdout is not None
        deadline = time.monotonic() + self._limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                if not selector.select(left):
                    continue
                data = os.read(process.stdout.fileno(), 1 << 16)
                if not data:
                    return True
                self._take(data, observer)
        return False

    def _take(self, data: bytes, observer: Observer) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["kind"] == "progress":
                observer.trial_progress(message["fraction"], message["text"])
            else:
                self._answer = message

    def _ask_to_end(self, process: subprocess.Popen[bytes]) -> None:
        """Let the trial close its records; a second Ctrl-C, or time, cuts that short."""
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(_LAST_WORDS_S)

    def _too_long(self) -> str:
        return f"it took longer than its limit of {self._limit_s:g} s"

    def _died(self, status: int) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        last = f": {lines[-1][:200]}" if lines else ""
        if status > 128:
            return f"its process was killed by {signal.Signals(status - 128).name}{last}"
        return f"its process ended with status {status} and no answer{last}"
