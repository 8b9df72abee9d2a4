"""ICMP echoes out of a node's namespace by sockets of our own: who answers, and from how far.

An echo with a small time to live is answered by the router where it ends (RFC 792, RFC 4443),
which is how a path is found.  One raw socket asks one target; its echoes are told apart by
sequence number.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import struct
import time
from typing import Any, NamedTuple

from testbed.errors import ExperimentError

_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_numbers = itertools.count(os.getpid())

_ECHO, _ECHO_REPLY, _TIME_EXCEEDED, _UNREACHABLE = range(4)
_TYPES = {4: (8, 0, 11, 3), 6: (128, 129, 3, 1)}
_AGAIN_S = 0.1  # after an echo that could not even be sent
_ICMP6_FILTER, _SOL_ICMPV6 = 1, 58


class Answer(NamedTuple):
    """What came back for one echo: from where, whether it is the target's own, after how long.

    `refused`: whoever answered knows no way to the target.
    """

    sequence: int
    address: str
    reached: bool
    after_s: float
    refused: bool = False


class Echo:
    """Asks `target` (an address) from inside `node`; `source` is the address to ask from."""

    def __init__(self, node: Any, target: str, *, source: str = "") -> None:
        self.version = 6 if ":" in target else 4
        self._types = _TYPES[self.version]
        self._number = next(_numbers) & 0xFFFF
        self._target = target
        self._sent: dict[int, float] = {}
        if node.stack_elsewhere:
            raise ExperimentError(
                f"{node.name} is a machine of its own, and sends no echoes of ours",
                remedy="run ping in it",
            )
        with node.netns:
            if self.version == 4:
                self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            else:
                self._socket = socket.socket(
                    socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6
                )
                self._socket.setsockopt(_SOL_ICMPV6, _ICMP6_FILTER, _pass(self._types[1:]))
        self._socket.setblocking(False)
        if source:
            self._socket.bind((source, 0))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def send(self, sequence: int, *, hops: int = 64) -> str:
        """Send an echo that may cross `hops` nodes; why it could not be sent, or ""."""
        packet = _HEADER.pack(self._types[_ECHO], 0, 0, self._number, sequence) + bytes(48)
        if self.version == 4:
            packet = packet[:2] + struct.pack("!H", _checksum(packet)) + packet[4:]
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
        else:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
        self._sent[sequence] = time.monotonic()
        try:
            self._socket.sendto(packet, (self._target, 0))
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def answers(self) -> list[Answer]:
        """What has come back since it was last asked."""
        found: list[Answer] = []
        while True:
            try:
                data, sender = self._socket.recvfrom(2048)
            except BlockingIOError:
                return found
            except OSError:  # an error that the kernel notes on the socket; the next read goes on
                continue
            answer = self._understand(data, str(sender[0]))
            if answer is not None:
                found.append(answer)

    async def wait(self, until: float) -> list[Answer]:
        """Answers, as soon as there are any, or [] at `until` (time.monotonic())."""
        loop = asyncio.get_running_loop()
        while not (found := self.answers()) and (left := until - time.monotonic()) > 0:
            ready = asyncio.Event()
            loop.add_reader(self._socket, ready.set)
            try:
                await asyncio.wait_for(ready.wait(), left)
            except TimeoutError:
                return self.answers()
            finally:
                loop.remove_reader(self._socket)
        return found

    def _understand(self, data: bytes, sender: str) -> Answer | None:
        if self.version == 4:
            data = data[(data[0] & 15) * 4 :]
        kind = data[0]
        if kind in (self._types[_TIME_EXCEEDED], self._types[_UNREACHABLE]):
            inner = data[8:]
            data = inner[40:] if self.version == 6 else inner[(inner[0] & 15) * 4 :]
            if len(data) < 8 or data[0] != self._types[_ECHO]:
                return None
        elif kind != self._types[_ECHO_REPLY]:
            return None
        _type, _code, _sum, number, sequence = _HEADER.unpack_from(data)
        if number != self._number or sequence not in self._sent:
            return None
        reached, refused = kind == self._types[_ECHO_REPLY], kind == self._types[_UNREACHABLE]
        return Answer(sequence, sender, reached, time.monotonic() - self._sent[sequence], refused)


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _pass(types: tuple[int, ...]) -> bytes:
    """An ICMP6_FILTER (RFC 3542) that lets `types` through: a bit set is a type blocked."""
    blocked = [0xFFFFFFFF] * 8
    for kind in types:
        blocked[kind >> 5] &= ~(1 << (kind & 31))
    return struct.pack("=8I", *blocked)


async def round_trip(
    node: Any, target: str, *, source: str = "", tries: int = 3, wait_s: float = 1.0
) -> tuple[float | None, str]:
    """Round-trip time in seconds of the first echo that is answered, or None and why.

    At most `tries` echoes are sent, the next when `wait_s` went by without an answer.  A node
    that is a machine of its own sends them itself.
    """
    if node.stack_elsewhere:
        return await node.round_trip(target, source=source, tries=tries, wait_s=wait_s)  # type: ignore[no-any-return]
    why = f"no answer to {tries} echoes"
    try:
        with Echo(node, target, source=source) as echo:
            for number in range(tries):
                unsent = echo.send(number)
                why = unsent or why
                until = time.monotonic() + (min(wait_s, _AGAIN_S) if unsent else wait_s)
                while time.monotonic() < until:
                    for answer in await echo.wait(until):
                        if answer.reached:
                            return answer.after_s, ""
                        if answer.refused:
                            why, until = f"{answer.address} knows no way", time.monotonic()
    except OSError as error:
        why = error.strerror or str(error)
    return None, why


async def path(
    node: Any,
    target: str,
    *,
    source: str = "",
    longest: int = 32,
    rounds: int = 4,
    wait_s: float = 1.0,
) -> list[str | None]:
    """Addresses of the routers on the way, then the target's; None for one that kept silent.

    Without the target at the end it was not reached.  Echoes that may go 1, 2, ... `longest` hops
    are sent at once, and those that were not answered within `wait_s` again, `rounds` times in all
    (no more once the target is still out of sight and nobody new has answered).
    """
    hops: dict[int, str] = {}
    end: int | None = None
    known = 0
    with Echo(node, target, source=source) as echo:
        for _round in range(rounds):
            due = [n for n in range(1, (end or longest + 1)) if n not in hops]
            if (end is not None and not due) or (end is None and _round and len(hops) == known):
                break
            known = len(hops)
            for number in due:
                echo.send(number, hops=number)
            until = time.monotonic() + wait_s
            while time.monotonic() < until and not (end and all(n in hops for n in range(1, end))):
                for answer in await echo.wait(until):
                    if answer.reached:
                        end = min(end or answer.sequence, answer.sequence)
                    elif not answer.refused:
                        hops[answer.sequence] = answer.address
    last = end or max(hops, default=0) + 1
    found: list[str | None] = [hops.get(number) for number in range(1, last)]
    return [*found, target] if end else found
