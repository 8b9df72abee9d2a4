"""A sandbox's control groups, which the kernel keeps, removed when the sandbox is gone.

They are directories of the machine's, so the death of every process of the sandbox leaves them.
A shell, started before the namespaces are made and in a session of its own, reads a pipe that
only the sandbox's two first processes hold.  When both have ended, be it by SIGKILL, the pipe
ends, the shell removes the directories that carry the sandbox's name, and ends.  It is started
with every sandbox whose user may make control groups: it costs a millisecond and under a
megabyte, and a process started later could only be one that dies with the sandbox.
"""

from __future__ import annotations

import os

ROOT = "/sys/fs/cgroup"

# A group is busy until the kernel is done with the last process in it.
_SCRIPT = """
read -r _
for group in "$1/$2" "$1"/*/"$2"; do
    tries=0
    while [ -d "$group" ] && [ $tries -lt 500 ]; do
        rmdir "$group"/*/ "$group" || sleep 0.02
        tries=$((tries + 1))
    done
done
"""


class Janitor:
    """Removes the groups called `name` when the last copy of `pipe` is closed."""

    def __init__(self, name: str) -> None:
        read, self.pipe = os.pipe()
        self.pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _SCRIPT, "testbed-janitor", ROOT, name],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, read, 0),
                (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        os.close(read)

    def finish(self) -> None:
        """Wait until the groups are removed; nobody else may hold the pipe any more."""
        os.close(self.pipe)
        os.waitpid(self.pid, 0)


def janitor(name: str) -> Janitor | None:
    """One for the sandbox called `name`, unless its user may not make groups anyway."""
    return Janitor(name) if os.geteuid() == 0 and os.path.isdir(ROOT) else None
