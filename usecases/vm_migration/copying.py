"""A file from one device to the other, over the network between them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

_AT_ONCE = 1 << 18


async def copy(source: Path, target: Path, *, sender: Any, receiver: Any, address: str) -> int:
    """Send a file from node `sender` to `address` of node `receiver` by TCP; its size in bytes."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        with receiver.netns:
            listener = stack.enter_context(socket.create_server((address, 0)))
        with sender.netns:
            end = stack.enter_context(socket.socket())
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        for ours in (listener, end):
            ours.setblocking(False)
        receiving = asyncio.create_task(_receive(listener, target))
        try:
            await loop.sock_connect(end, listener.getsockname())
            with source.open("rb") as file:
                await loop.sock_sendfile(end, file)
            end.shutdown(socket.SHUT_WR)
            return await receiving
        finally:
            receiving.cancel()


async def _receive(listener: socket.socket, target: Path) -> int:
    loop = asyncio.get_running_loop()
    there, _address = await loop.sock_accept(listener)
    size = 0
    with there, target.open("wb") as file:
        while data := await loop.sock_recv(there, _AT_ONCE):
            size += file.write(data)
    return size
