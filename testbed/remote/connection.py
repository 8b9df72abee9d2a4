"""A session with a machine's SSH server.  Whatever goes wrong is told in one line."""

from __future__ import annotations

import logging
import shlex
import socket
from typing import TYPE_CHECKING

from testbed.closing import Closing
from testbed.errors import MachineError, PrivilegeError
from testbed.remote.address import Address
from testbed.remote.keys import KnownHosts

if TYPE_CHECKING:
    from paramiko import Channel, PKey, Transport

CONNECT_LIMIT_S = 15.0
logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # what it logs, we raise


class Connection(Closing):
    """Logged in at `address`; `open` makes one."""

    def __init__(self, transport: Transport, address: Address, name: str) -> None:
        self._transport = transport
        self.address = address
        self.name = name

    @classmethod
    def open(
        cls,
        address: Address,
        known: KnownHosts,
        *,
        name: str = "",
        vouched: str = "",
        trust_first: bool = False,
        limit_s: float = CONNECT_LIMIT_S,
    ) -> Connection:
        """Log in; `name` is what messages call the machine.

        For `vouched` and `trust_first` see `KnownHosts.check`.  Raises `MachineError` where the
        host is not reached or its key is not the known one, `PrivilegeError` where nobody lets us
        in.
        """
        import paramiko

        name = name or str(address)
        transport = _transport(address, name, limit_s)
        try:
            transport.start_client(timeout=limit_s)
            key = transport.get_remote_server_key()
            known.check(address.known_as, key, vouched=vouched, trust_first=trust_first)
            _log_in(transport, address, name)
        except paramiko.SSHException as error:
            transport.close()
            raise MachineError(f"{name} ({address}) does not speak SSH: {error}") from error
        except (EOFError, OSError) as error:
            transport.close()
            raise MachineError(f"{name} ({address}) hung up: {error or 'no reason'}") from error
        except BaseException:
            transport.close()
            raise
        return cls(transport, address, name)

    def channel(self, command: str, limit_s: float = CONNECT_LIMIT_S) -> Channel:
        """Start a command; its standard input, output and errors are the channel's."""
        import paramiko

        try:
            channel = self._transport.open_session(timeout=limit_s)
            channel.exec_command(command)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise MachineError(f"{self.name} starts no command: {error}") from error
        return channel

    def close(self) -> None:
        """Hang up; whatever runs there through this connection ends."""
        self._transport.close()


def _transport(address: Address, name: str, limit_s: float) -> Transport:
    import paramiko

    try:
        if address.through:
            # a session of its own: Ctrl-C is for the command there, not for the way to it
            line = paramiko.ProxyCommand(f"setsid sh -c {shlex.quote(address.through)}")
        else:
            line = socket.create_connection((address.host, address.port), limit_s)
        return paramiko.Transport(line)
    except (OSError, paramiko.SSHException) as error:
        reason = getattr(error, "strerror", None) or error
        raise MachineError(
            f"{name} ({address}) is not reached: {reason}", remedy="is it up?"
        ) from error


def _log_in(transport: Transport, address: Address, name: str) -> None:
    """Try each key there is, as OpenSSH does; some servers hang up after six."""
    import paramiko

    tried = 0
    for key in _keys(address):
        tried += 1
        try:
            transport.auth_publickey(address.user, key)
        except paramiko.BadAuthenticationType as error:
            raise PrivilegeError(
                f"{name} lets nobody in by key, only by {', '.join(error.allowed_types)}"
            ) from error
        except paramiko.AuthenticationException:
            continue
        if transport.is_authenticated():
            return
    raise PrivilegeError(
        f"{name} refuses {address.user}: none of {tried} keys is accepted",
        remedy="add yours to ~/.ssh/authorized_keys there, or give --key FILE",
    )


def _keys(address: Address) -> list[PKey]:
    import paramiko

    found = []
    own = [f"~/.ssh/id_{kind}" for kind in ("ed25519", "ecdsa", "rsa")] if address.own_keys else []
    for path in dict.fromkeys((*address.keys, *own)):
        key = _load(path, needed=path in address.keys and not address.own_keys)
        found += [key] if key else []
    return [*found, *(paramiko.Agent().get_keys() if address.own_keys else ())]


def _load(path: str, *, needed: bool) -> PKey | None:
    from pathlib import Path

    import paramiko

    try:
        return paramiko.PKey.from_path(Path(path).expanduser())
    except (OSError, ValueError, TypeError, paramiko.SSHException) as error:
        if not needed:  # one of many that OpenSSH would try: absent, or with a passphrase
            return None
        raise PrivilegeError(f"key {path} cannot be used: {error}") from error
