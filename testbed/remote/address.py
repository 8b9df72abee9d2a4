"""Where a machine is: host, port, user, keys; of what a user writes and OpenSSH's settings say."""

from __future__ import annotations

import getpass
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from testbed.errors import ParameterError

_HOST = re.compile(r"(?:([^@\s]+)@)?(\[[^\]\s]+\]|[^@\s:\[\]]+)(?::(\d+))?")
_SETTINGS = Path("~/.ssh/config")


@dataclass(frozen=True, kw_only=True)
class Address:
    """How to log in.

    `keys` are files of private keys; `own_keys` also tries those of the user's agent and of
    ~/.ssh.  `through` is a command whose standard input and output lead to the SSH server.
    With `root` everything is done as root there, by sudo without a password.  `folder` is where
    the copy of the project is.  `alias` is the name under which the host's key is known, where
    host and port are not always the same.
    """

    host: str
    port: int = 22
    user: str
    keys: tuple[str, ...] = ()
    own_keys: bool = False
    through: str = ""
    root: bool = False
    folder: str = "~/liquidnet"
    alias: str = ""

    @property
    def known_as(self) -> str:
        """What a file of known hosts calls it."""
        return self.alias or (self.host if self.port == 22 else f"[{self.host}]:{self.port}")

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + (f":{self.port}" if self.port != 22 else "")

    def as_dict(self) -> dict[str, Any]:
        """For `Address.of`."""
        return asdict(self)

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Address:
        """From what `as_dict` gave."""
        return cls(**{**facts, "keys": tuple(facts["keys"])})


def parse(text: str, *, key: str = "", settings: Path = _SETTINGS) -> Address:
    """An address from "user@host:port", "host" or a name of ~/.ssh/config.

    `key` is the file of a private key, instead of those that OpenSSH would try.  Raises
    `ParameterError` where the text is no such thing.
    """
    match = _HOST.fullmatch(text)
    if match is None or not 0 < int(match[3] or 22) < 1 << 16:
        raise ParameterError(f"--host {text}", remedy="give HOST, USER@HOST or USER@HOST:PORT")
    user, name, port = match[1], match[2].strip("[]"), match[3]
    found = _lookup(name, settings)
    return Address(
        host=found.get("hostname", name),
        port=int(port or found.get("port", 22)),
        user=user or found.get("user") or getpass.getuser(),
        keys=(key,) if key else tuple(found.get("identityfile", ())),
        own_keys=not key,
        through=found.get("proxycommand", ""),
    )


def _lookup(name: str, settings: Path) -> dict[str, Any]:
    """What ~/.ssh/config says of a host."""
    from paramiko import SSHConfig
    from paramiko.ssh_exception import ConfigParseError

    path = settings.expanduser()
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = dict(SSHConfig.from_path(str(path)).lookup(name))
    except ConfigParseError as error:
        raise ParameterError(f"{path}: {error}") from error
    if "proxyjump" in found and "proxycommand" not in found:
        found["proxycommand"] = f"ssh -W [{found['hostname']}]:{found.get('port', 22)} " + str(
            found["proxyjump"]
        )
    return found
