"""`python -m testbed.sandbox [--lifeline FD] -- COMMAND...`: a command in a new sandbox."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from testbed.errors import TestbedError
from testbed.sandbox._child import contain


def main(argv: list[str]) -> NoReturn:
    """Parse, contain, exit with the command's status (127 where it cannot be started)."""
    if "--" not in argv or not argv[argv.index("--") + 1 :]:
        sys.exit("usage: python -m testbed.sandbox [--lifeline FD] -- COMMAND [ARG...]")
    cut = argv.index("--")
    options, command = argv[:cut], argv[cut + 1 :]
    lifelines = [int(fd) for fd in options[1::2]]
    for fd in lifelines:
        os.set_inheritable(fd, False)
    try:
        status = contain(lambda: _execute(command), lifelines)
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
