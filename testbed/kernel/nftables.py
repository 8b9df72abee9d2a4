"""nftables of one namespace through libnftables: rules and elements in a millisecond, no process.

`Nftables` reads what nft(8) reads and says what nft would print.  A ruleset is loaded whole or
not at all.  Descriptions of rules and states that live in them belong to the rooms above.

Library: libnftables(3), which Debian's nft is built on.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import json
from contextlib import nullcontext
from typing import Any

from testbed.closing import Closing
from testbed.errors import FeatureError, KernelError
from testbed.kernel.namespaces import NetworkNamespace

_LIBRARY = "libnftables.so.1"
_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON
_HANDLE = 1 << 3
_TERSE = 1 << 11


class Nftables(Closing):
    """A handle on the rules of one namespace (of the calling thread's where none is given).

    Not for two threads at once.  Raises `FeatureError` where the library is missing.
    """

    def __init__(self, namespace: NetworkNamespace | None = None) -> None:
        self._library = _load()
        self._namespace = namespace
        with namespace or nullcontext():
            self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise KernelError(errno.ENOMEM, "libnftables gives no context")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> str:
        """Carry out `commands`, all or none; what nft would print.

        Raises `KernelError` with the first line of nft's own complaint.
        """
        return self._run(commands, 0)

    def ask(self, command: str) -> list[dict[str, Any]]:
        """The objects a `list` command gives, as libnftables-json(5) writes them."""
        said = self._run(command, _JSON | _HANDLE)
        return list(json.loads(said)["nftables"]) if said else []

    def listing(self, table: str) -> str:
        """A table ("ip filter") as text that `run` takes, without the elements of its sets."""
        return self._run(f"list table {table}", _TERSE)

    def close(self) -> None:
        """Free the library's context."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None

    def _run(self, commands: str, flags: int) -> str:
        self._library.nft_ctx_output_set_flags(self._context, flags)
        # The library opens a socket for each run, so the namespace has to be entered here too.
        with self._namespace or nullcontext():
            status = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            number = ctypes.get_errno()
        said = self._library.nft_ctx_get_output_buffer(self._context).decode()
        complaint = self._library.nft_ctx_get_error_buffer(self._context).decode()
        if status != 0:
            reason = (complaint.strip() or "no reason given").splitlines()[0]
            refused = "Could not process rule" in reason  # else the library did not understand
            raise KernelError(number if refused else errno.EINVAL, f"nftables: {reason}")
        return str(said)


@functools.cache
def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY, use_errno=True)
    except OSError as error:
        raise FeatureError(
            f"{_LIBRARY} cannot be loaded", remedy="sudo apt install libnftables1"
        ) from error
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("nft_ctx_new", pointer, [ctypes.c_uint32]),
        ("nft_ctx_free", None, [pointer]),
        ("nft_ctx_buffer_output", ctypes.c_int, [pointer]),
        ("nft_ctx_buffer_error", ctypes.c_int, [pointer]),
        ("nft_ctx_get_output_buffer", text, [pointer]),
        ("nft_ctx_get_error_buffer", text, [pointer]),
        ("nft_ctx_output_set_flags", None, [pointer, ctypes.c_uint]),
        ("nft_run_cmd_from_buffer", ctypes.c_int, [pointer, text]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
