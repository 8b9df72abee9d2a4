"""`testbed vm` for real in QEMU: up, doctor, a run's bundle back, down, nothing left.

Not collected by pytest: translated, it takes five to ten minutes (half of it setting up).  Run it
by hand, with `testbed image build full` done:

    .venv/bin/python tests/vm_in_qemu.py

Prints how long each step took; ends with a traceback when one did not do what it should.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAME = f"for-real-{os.getpid()}"
TESTBED = Path(sys.executable).with_name("testbed")
ROOT = Path(__file__).parents[1]


def testbed(step: str, *words: str) -> str:
    """Call `testbed vm`; its standard output."""
    began = time.monotonic()
    command = [str(TESTBED), "vm", words[0], "--name", NAME, *words[1:]]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(f"{step}: {time.monotonic() - began:.1f} s", flush=True)  # noqa: T201
    assert done.returncode == 0, f"{' '.join(words)}: status {done.returncode}"
    return done.stdout


def ours() -> list[str]:
    """QEMUs of this machine."""
    lines = subprocess.run(["ps", "axo", "args"], capture_output=True, text=True, check=True)
    return [line for line in lines.stdout.splitlines() if f"-name liquidnet-{NAME} " in line]


def main() -> None:
    """All of it."""
    facts: Any = json.loads(testbed("up", "up", "--qemu", "--offline", "--json"))
    try:
        assert facts["state"] == "running"
        assert len(ours()) == 1
        findings = json.loads(testbed("doctor", "run", "doctor", "--json"))
        assert next(each for each in findings if each["name"] == "netem")["ok"]
        case = ("tiny", "--path", "tests/run_cases", "--quick", "--results", f"results/{NAME}")
        testbed("a use case", "run", *case)
        (run,) = (ROOT / "results" / NAME / "tiny").iterdir()
        provenance = json.loads((run / "run.json").read_text())
        assert provenance["status"] == "complete"
        assert provenance["machine"]["remote"]["name"] == NAME
        assert provenance["machine"]["kernel"] != " ".join(os.uname()[i] for i in (0, 2, 4))
        assert (run / "report.html").is_file()
        testbed("down", "down")
        assert not ours()
    finally:
        testbed("down and forgotten", "down", "--destroy")
        shutil.rmtree(ROOT / "results" / NAME, ignore_errors=True)
    assert not ours()


if __name__ == "__main__":
    main()
