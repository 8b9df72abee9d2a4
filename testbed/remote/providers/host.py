"""A machine that somebody else brings up: any host with an SSH server."""

from __future__ import annotations

import socket
from typing import Any

from testbed.remote.address import Address, parse
from testbed.remote.progress import Progress
from testbed.remote.providers.base import RUNNING, Provider

_LIMIT_S = 3.0


class Host(Provider):
    """`--host user@host:port`; its options are "host" and "key"."""

    kind = "host"

    @classmethod
    def missing(cls) -> str:
        """Nothing."""
        return ""

    @classmethod
    def options(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Where it is, and the private key to log in with."""
        return {"host": given["host"], "key": given["key"]}

    def up(self, progress: Progress) -> Address:
        """It is up, or is not: connecting tells."""
        return parse(self.machine.options["host"], key=self.machine.options["key"])

    def state(self) -> str:
        """Does anything answer at its port?"""
        address = self.machine.address
        if address is None or address.through:
            return "not known"
        try:
            socket.create_connection((address.host, address.port), _LIMIT_S).close()
        except OSError as error:
            return f"not reached: {error.strerror or error}"
        return RUNNING

    def down(self, progress: Progress, *, destroy: bool) -> None:
        """It is not ours to end; what ran there has ended with its command."""
        if not destroy:
            progress.line("left running; --destroy forgets it")
