"""`python -m testbed.sandbox [--uplink] [--lifeline FD] -- COMMAND...`: a command in a sandbox."""

from __future__ import annotations

import itertools
import os
import sys
from typing import NoReturn

from testbed.errors import TestbedError
from testbed.sandbox._child import contain


def main(argv: list[str]) -> NoReturn:
    """Parse, contain, exit with the command's status (127 where it cannot be started)."""
    if "--" not in argv or not argv[argv.index("--") + 1 :]:
        sys.exit("usage: python -m testbed.sandbox [--uplink] [--lifeline FD] -- COMMAND [ARG...]")
    cut = argv.index("--")
    options, command = argv[:cut], argv[cut + 1 :]
    lifelines = [int(fd) for name, fd in itertools.pairwise(options) if name == "--lifeline"]
    for fd in lifelines:
        os.set_inheritable(fd, False)
    try:
        status = contain(lambda: _execute(command), lifelines, uplink="--uplink" in options)
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        status = error.exit_status
    sys.exit(status)


def _execute(command: list[str]) -> int:
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"testbed: cannot start {command[0]}: {error.strerror}", file=sys.stderr)
    return 127


if __name__ == "__main__":
    main(sys.argv[1:])
