"""What was ordered, done; a failure is told in one line, not as a traceback."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from typing import Any

from testbed.remote.far import files
from testbed.remote.far.supervise import Supervisor
from testbed.remote.far.wire import FAILURE, ORDER, Decoder, Frame, Wire, packed


def main() -> None:
    """Take the order from standard input, do it, exit."""
    for number in (signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    decoder, early = Decoder(), list[Frame]()
    while not early:
        piece = os.read(0, 65536)
        if not piece:
            sys.exit(1)
        early += decoder.feed(piece)
    kind, payload = early.pop(0)
    assert kind == ORDER
    order = json.loads(payload)
    wire = Wire(lambda: os._exit(1), order["patience_s"])
    try:
        _do(wire, order, decoder, early)
    except OSError as error:
        wire.send(FAILURE, packed(_failure(order, error)))


def _do(wire: Wire, order: dict[str, Any], decoder: Decoder, early: list[Frame]) -> None:
    if order["do"] == "run":
        supervisor = Supervisor(wire, order)
        wire.start(decoder, early)
        supervisor.run()
        return
    wire.start(decoder, early)
    {"receive": files.receive, "send back": files.send_back}[order["do"]](wire, order)


def _failure(order: dict[str, Any], error: OSError) -> dict[str, Any]:
    """What went wrong, in words."""
    reason = error.strerror or str(error)
    where = f"{error.filename}: " if error.filename else ""
    kind = "full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else order["do"]
    return {"message": f"{where}{reason}", "kind": kind}
