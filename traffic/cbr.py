"""Constant bit rate over UDP: loss, one-way delay, jitter.

    python -m traffic.cbr receive [--port 5002]
    python -m traffic.cbr send HOST [--rate 1M] [--size 200] [--duration 10]

The rate counts UDP payload.  A datagram's delay is from just before it was handed to the kernel
to its arrival at the receiver's UDP socket (the kernel's time stamp): scheduling of the receiver
does not count.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import time

from traffic.emit import clock
from traffic.flow import HEADER, Datagram, Flow
from traffic.meter import TICK_S
from traffic.program import (
    Life,
    Parser,
    PeerVanished,
    Results,
    Stopped,
    amount,
    port,
    run,
    whole,
)

PORT = 5002
_ANSWER_S = 0.2
_TRIES = 50
_LARGEST = 65507
_SO_TIMESTAMPNS = 35
_ONE_MOMENT_NS = 20_000
_ANCILLARY = socket.CMSG_SPACE(16)


def parser() -> argparse.ArgumentParser:
    """Arguments of the program."""
    top = Parser(prog="traffic.cbr", description=__doc__.splitlines()[0] if __doc__ else "")
    roles = top.add_subparsers(dest="role", required=True)
    receive = roles.add_parser("receive", help="receive until told to stop")
    receive.add_argument("--once", action="store_true", help="receive one flow, then end")
    send = roles.add_parser("send", help="send one flow")
    send.add_argument("host", metavar="HOST", help="the receiver's address")
    send.add_argument("--rate", type=amount, default=1e6, metavar="BPS", help="default: 1M")
    send.add_argument("--size", type=_size, default=200, help="of a datagram's payload: 200")
    send.add_argument("--duration", type=amount, default=10.0, metavar="S", help="default: 10 s")
    for role in (receive, send):
        role.add_argument("--port", type=port, default=PORT, help=f"default: {PORT}")
        role.add_argument("--bind", default="", metavar="ADDRESS", help="own address")
    return top


def _size(text: str) -> int:
    value = whole(text)
    if not HEADER <= value <= _LARGEST:
        raise argparse.ArgumentTypeError(f"{value}: give {HEADER} to {_LARGEST} bytes")
    return value


def main(options: argparse.Namespace, life: Life) -> Results:
    """Send or receive."""
    return _send(options, life) if options.role == "send" else _receive(options, life)


# -- sender --------------------------------------------------------------------------------------


def _send(options: argparse.Namespace, life: Life) -> Results:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    flow = int.from_bytes(os.urandom(4), "big")
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if options.bind:
            sock.bind((options.bind, 0))
        sock.connect((options.host, options.port))
        life.track(sock)
        _ask(life, sock, Datagram("hello", flow, 0))
        life.emit.ready(flow=flow)
        start = clock()
        sent = _pace(options, life, sock, flow)
        elapsed = clock() - start
        received = _ask(life, sock, Datagram("end", flow, sent)) if not life.stopping else None
    return {
        "sent": sent,
        "bytes_sent": sent * options.size,
        "elapsed": elapsed,
        "received": received,
        "lost": None if received is None else sent - received,
    }


def _pace(options: argparse.Namespace, life: Life, sock: socket.socket, flow: int) -> int:
    """Send at the rate, each datagram when it is due; returns how many were sent."""
    interval = options.size * 8 / options.rate
    total = max(1, int(options.duration / interval))
    start = clock()
    for number in range(total):
        try:
            life.sleep(start + number * interval - clock())
            sock.send(Datagram("data", flow, number, time.monotonic_ns()).build(options.size))
        except Stopped:
            return number
        except ConnectionRefusedError as error:
            raise _vanished("nobody listens there") from error
        except OSError as error:
            if life.stopping:
                return number
            raise _vanished(error.strerror or str(error)) from error
    return total


def _ask(life: Life, sock: socket.socket, question: Datagram) -> int:
    """Send until it is answered; the answer's number is how many datagrams arrived."""
    sock.settimeout(_ANSWER_S)
    for _ in range(_TRIES):
        try:
            sock.send(question.build())
            answer = Datagram.parse(sock.recv(2048))
        except TimeoutError:
            continue
        except OSError as error:
            if life.stopping:
                raise Stopped from error
            raise _vanished(error.strerror or str(error)) from error
        if answer is not None and answer[:2] == question[:2]:
            sock.settimeout(None)
            return answer.number
        if life.stopping:
            raise Stopped
    raise _vanished(f"no answer in {_ANSWER_S * _TRIES:g} s")


def _vanished(why: str) -> PeerVanished:
    return PeerVanished(f"the receiver vanished: {why}", remedy="start the receiver first")


# -- receiver ------------------------------------------------------------------------------------


def _receive(options: argparse.Namespace, life: Life) -> Results:
    family = socket.AF_INET6 if ":" in options.bind else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.bind((options.bind, options.port))
        life.emit.ready(port=sock.getsockname()[1])
        receiver = _Receiver(life, sock)
        while not life.stopping and not (options.once and receiver.ended):
            receiver.step()
    return receiver.results()


class _Receiver:
    def __init__(self, life: Life, sock: socket.socket) -> None:
        self._life, self._socket = life, sock
        self._flows: dict[int, Flow] = {}
        self.ended: dict[int, int] = {}  # what the senders of ended flows say they sent
        sock.settimeout(TICK_S)

    def step(self) -> None:
        """Take one datagram, or let an interval pass."""
        try:
            data, ancillary, _, sender = self._socket.recvmsg(_LARGEST, _ANCILLARY)
        except TimeoutError:
            for flow in self._running():
                flow.advance(self._life.emit, clock())
            return
        datagram = Datagram.parse(data)
        if datagram is None:
            return
        if datagram.kind == "data":
            self._data(datagram, _arrived(ancillary), len(data))
        else:
            self._answer(datagram, sender)

    def _running(self) -> list[Flow]:
        return [flow for number, flow in self._flows.items() if number not in self.ended]

    def _data(self, datagram: Datagram, arrived_ns: int, size: int) -> None:
        flow = self._flows.setdefault(datagram.flow, Flow())
        delay_s = (arrived_ns - datagram.sent_ns) / 1e9
        flow.took(self._life.emit, datagram.number, delay_s, arrived_ns / 1e9, size)

    def _answer(self, datagram: Datagram, sender: tuple[str, int]) -> None:
        flow = self._flows.setdefault(datagram.flow, Flow())
        if datagram.kind == "end" and datagram.flow not in self.ended:
            self.ended[datagram.flow] = datagram.number
            flow.advance(self._life.emit, clock() + TICK_S)
            self._life.emit.event("flow", flow=datagram.flow, **flow.results(datagram.number))
        answer = Datagram(datagram.kind, datagram.flow, flow.received)
        self._socket.sendto(answer.build(), sender)

    def results(self) -> Results:
        """Sums of all flows, and each one's account if there was just one."""
        if len(self._flows) == 1:
            ((number, flow),) = self._flows.items()
            return dict(flow.results(self.ended.get(number)))
        flows = list(self._flows.values())
        return {"flows": len(flows), "received": sum(flow.received for flow in flows)}


def _arrived(ancillary: list[tuple[int, int, bytes]]) -> int:
    """When the kernel received the datagram, by CLOCK_MONOTONIC (ns).

    The kernel stamps by CLOCK_REALTIME; how long ago that was does not depend on the clock.
    """
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("=qq", data)
            stamp: int = seconds * 1_000_000_000 + nanoseconds
            return stamp - _realtime_ahead()
    return time.monotonic_ns()


def _realtime_ahead() -> int:
    """CLOCK_REALTIME minus CLOCK_MONOTONIC (ns), read at one moment."""
    while True:
        before = time.monotonic_ns()
        realtime = time.time_ns()
        after = time.monotonic_ns()
        if after - before < _ONE_MOMENT_NS:  # else the process was preempted in between
            return realtime - (before + after) // 2


if __name__ == "__main__":
    run(parser(), main)
