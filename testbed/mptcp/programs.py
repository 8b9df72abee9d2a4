"""Unmodified programs over Multipath TCP: the command and environment to start them with.

A program asks the kernel for TCP; something between must ask for MPTCP instead.  For dynamically
linked programs that is `mptcpize` (a preloaded library around `socket`), for Go programs the run
time's own switch.  Statically linked programs of other languages cannot be helped this way.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.errors import FeatureError, ParameterError

_GO_MARK = b"\xff Go buildinf:"  # debug/buildinfo: at the start of a section of every Go program
_INTERPRETER = re.compile(rb"/lib[^\0]*/ld[^\0]*\.so[^\0]*\0")


def as_mptcp(
    argv: Sequence[str], environment: Mapping[str, str] | None = None
) -> tuple[list[str], dict[str, str]]:
    """Command and environment that run `argv` with MPTCP sockets for its TCP ones.

    `environment` is the one to start from (this process's where none is given).  Raises
    `ParameterError` for a program that cannot be found, `FeatureError` where nothing here can
    make it speak MPTCP.
    """
    env = dict(os.environ if environment is None else environment)
    program = shutil.which(argv[0], path=env.get("PATH"))
    if program is None:
        raise ParameterError(f"program {argv[0]!r} is not found", remedy="give its path")
    content = Path(program).read_bytes()
    if _GO_MARK in content:
        env["GODEBUG"] = ",".join(filter(None, (env.get("GODEBUG", ""), "multipathtcp=1")))
        return list(argv), env
    if content[:4] == b"\x7fELF" and not _INTERPRETER.search(content):
        raise FeatureError(
            f"{argv[0]} is statically linked: its sockets cannot be made MPTCP from outside",
            remedy="use a dynamically linked build, or one that asks for IPPROTO_MPTCP itself",
        )
    wrapper = shutil.which("mptcpize", path=env.get("PATH"))
    if wrapper is None:
        raise FeatureError(
            f"mptcpize, which makes {argv[0]} use MPTCP, is not installed",
            remedy="sudo apt install mptcpize",
        )
    return [wrapper, "run", *argv], env
