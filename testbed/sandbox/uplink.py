"""A sandbox's way out: the machine's own network, by slirp4netns.

It translates, in userspace and with the rights of whoever runs it, what leaves the sandbox into
connections of the machine, so that no setting of the machine is touched.  It is started before
the namespaces are made, joins them when they are there, and ends with the sandbox's first
processes, which hold the pipe it watches.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from testbed.errors import FeatureError

NETWORK = "198.19.255"  # of the block for benchmarks (RFC 2544), which nothing else should use
_MARK = Path("/run/testbed-uplink")
_RESOLVER = Path("/etc/resolv.conf")
_SCRIPT = 'read -r _ && exec "$@"'


def machine_address() -> str:
    """Address in this sandbox of the machine's loopback; empty without an uplink."""
    return _MARK.read_text() if _MARK.exists() else ""


def missing() -> str:
    """Why there can be no uplink on this machine, or an empty string."""
    if not shutil.which("slirp4netns"):
        return "slirp4netns is not installed"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun may not be opened"
    return ""


class Uplink:
    """Made before the namespaces are; `connect` is called inside them.

    `pipe` is the descriptor that keeps it alive.  Raises `FeatureError` where it cannot be had.
    """

    def __init__(self) -> None:
        if reason := missing():
            raise FeatureError(
                f"no uplink: {reason}",
                remedy="install slirp4netns; root or a /dev/net/tun of mode 0666 is needed",
            )
        watched, self.pipe = os.pipe()
        go, self._go = os.pipe()
        self._ready, ready = os.pipe()
        self._said = os.memfd_create("slirp4netns")
        command = (
            f"slirp4netns --configure --exit-fd=3 --ready-fd=4 --cidr={NETWORK}.0/24 "
            f"{os.getpid()} uplink"
        )
        descriptors = {0: go, 1: self._said, 2: self._said, 3: watched, 4: ready}
        high = {to: os.dup2(fd, 100 + to, inheritable=False) for to, fd in descriptors.items()}
        self._pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _SCRIPT, "testbed-uplink", *command.split()],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in high.items()],
            setsid=True,
        )
        for fd in (*high.values(), watched, go, ready):
            os.close(fd)

    def connect(self) -> None:
        """Called by the process that made it, in the new namespaces: wait until it works."""
        os.write(self._go, b"\n")
        os.close(self._go)
        ready = os.read(self._ready, 1)
        os.close(self._ready)
        if not ready:
            said = os.pread(self._said, 4096, 0).decode(errors="replace").strip().splitlines()
            raise FeatureError(
                f"no uplink: {said[-1] if said else 'slirp4netns ended'}",
                remedy="run as root, or without --uplink",
            )
        os.close(self._said)

    def finish(self) -> None:
        """Wait until it has ended; nobody else may hold the pipe any more."""
        os.close(self.pipe)
        os.waitpid(self._pid, 0)


def furnish() -> list[tuple[str, str]]:
    """In the sandbox's own /run: leave its mark; pairs of files to bind, source and target."""
    _MARK.write_text(f"{NETWORK}.2")
    resolver = Path("/run/testbed-resolv.conf")
    resolver.write_text(f"nameserver {NETWORK}.3\n")
    return [(str(resolver), str(_RESOLVER.resolve()))] if _RESOLVER.exists() else []
