"""How much a network carries between two hosts, for `Network.iperf`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from testbed.errors import ExperimentError, ParameterError
from testbed.network import udp_test

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}


def tcp(client: Any, server: Any, seconds: float, port: int) -> list[str]:
    """By iperf3 (iperf 2 hangs in its current version): what the server and the client measured."""
    listener = server.popen(["iperf3", "-s", "-1", "-p", str(port), "--forceflush"], text=True)
    try:
        while "listening" not in (line := listener.stdout.readline()):
            if not line:
                raise ExperimentError(f"iperf3 on {server}: {listener.stderr.read().strip()}")
        command = ["iperf3", "-J", "-t", str(seconds), "-p", str(port), "-c", server.IP()]
        answer = json.loads(client.popen(command, text=True).communicate()[0])
    finally:
        listener.kill()
        listener.communicate()
    if "error" in answer:
        raise ExperimentError(f"iperf3 from {client} to {server}: {answer['error']}")
    return [_text(answer["end"][key]["bits_per_second"]) for key in ("sum_received", "sum_sent")]


def udp(client: Any, server: Any, rate: str, seconds: float, port: int) -> list[str]:
    """What arrived at the server of what the client sent at a rate ("10M"), and that."""
    program = [sys.executable, "-I", udp_test.__file__]
    receiver = server.popen([*program, "receive", str(port)], stdin=subprocess.PIPE, text=True)
    if receiver.stdout.readline().strip() != "ready":
        raise ExperimentError(f"UDP on {server}: {receiver.communicate()[1].strip()}")
    words = [server.IP(), port, _bps(rate), seconds]
    sender = client.popen([*program, "send", *map(str, words)], text=True)
    sent = _measured(client, *sender.communicate())
    arrived = _measured(server, *receiver.communicate())
    return [_text(arrived[0] * 8 / sent[1]), _text(sent[0] * 8 / sent[1])]


def _measured(node: Any, said: str, error: str) -> tuple[int, float]:
    if not said.strip():
        raise ExperimentError(f"UDP on {node}: {(error.strip().splitlines() or ['ended'])[-1]}")
    size, seconds = said.split()
    return int(size), float(seconds)


def _bps(rate: str) -> float:
    number, unit = (rate[:-1], rate[-1].upper()) if rate[-1:].isalpha() else (rate, "")
    try:
        return float(number) * _UNITS[unit]
    except (KeyError, ValueError):
        raise ParameterError(f"udpBw is {rate!r}", remedy='give bit/s as "10M"') from None


def _text(bps: float) -> str:
    return f"{bps / 1e6:.3g} Mbits/sec"
