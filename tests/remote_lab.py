"""An SSH server of the test's own, in its sandbox, and what tests of other machines share."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from testbed.closing import Closing
from testbed.remote.address import Address
from testbed.remote.connection import Connection
from testbed.remote.keys import KnownHosts, make_pair

SSHD = shutil.which("sshd", path=os.pathsep.join((os.environ["PATH"], "/usr/sbin")))
PORT = 2222
LIMIT_S = 60.0  # for what takes moments on a machine at rest

needs_sshd = pytest.mark.skipif(
    SSHD is None or os.geteuid() != 0,
    reason="no sshd here (apt-get install openssh-server)" if SSHD is None
    else "sshd lets nobody in where it cannot change users: run as root",
)  # fmt: skip


def toy(folder: Path, tool: str = "#!/bin/sh\n") -> Path:
    """A project whose setup.sh makes its file `tool` the `testbed` of a .venv."""
    folder.mkdir(parents=True)
    (folder / "setup.sh").write_text(
        "#!/bin/sh\nset -e\necho 'setup: here'\nmkdir -p .venv/bin\n"
        "cp tool .venv/bin/testbed\nchmod 755 .venv/bin/testbed\n"
    )
    (folder / "setup.sh").chmod(0o755)
    (folder / "tool").write_text(tool)
    for name in ("pyproject.toml", "requirements.lock"):
        (folder / name).write_text("")
    (folder / ".gitignore").write_text(".venv\n/results/\n")
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    return folder


class Server(Closing):
    """sshd with a host key, a user's key and a home of its own below `folder`."""

    def __init__(
        self, folder: Path, *, address: str = "127.0.0.1", path: str = os.environ["PATH"],
        popen: Callable[..., Any] = subprocess.Popen,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        make_pair(folder / "host_key")
        public = make_pair(folder / "user_key")
        (folder / "authorized_keys").write_text(f"{public}\n")
        (folder / "sshd_config").write_text(
            f"Port {PORT}\nListenAddress {address}\nHostKey {folder}/host_key\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPidFile none\n"
            f"SetEnv HOME={self.home} PATH={path}\nLogLevel QUIET\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        self.known = KnownHosts(folder / "known_hosts", users=folder / "none")
        self.address = Address(
            host=address, port=PORT, user="root", keys=(str(folder / "user_key"),)
        )
        self.process = popen([str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")])

    def answers(self) -> Self:
        """Wait until it does (from the namespace of the caller)."""
        wait_until(self._reached, "sshd to answer")
        return self

    def connect(self, **options: Any) -> Connection:
        return Connection.open(self.address, self.known, name="there", trust_first=True, **options)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def _reached(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.address.host, PORT)) == 0


def wait_until(holds: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {limit_s:.0f} s for {what}"
        time.sleep(0.02)


def running(word: str) -> list[int]:
    """Processes of this sandbox that have `word` in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has just ended
            continue
        if word in words:
            found.append(int(path.parent.name))
    return found
