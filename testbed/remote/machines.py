"""What is known of each machine between two commands: a folder of its own in the cache.

machines/NAME/machine.json   provider, its options, the address
              known_hosts    the key of its SSH server
              ...            what the provider keeps (keys, disk, console)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed import cache
from testbed.errors import MachineError, ParameterError, UserError
from testbed.remote.address import Address
from testbed.remote.connection import Connection
from testbed.remote.keys import KnownHosts

_NAME = re.compile(r"[a-z\d][a-z\d_-]{0,31}")
USUAL = "default"


@dataclass
class Machine:
    """A machine that was brought up, or is being."""

    name: str
    provider: str
    options: dict[str, Any] = field(default_factory=dict)
    address: Address | None = None

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return _folder() / self.name

    @property
    def known_hosts(self) -> KnownHosts:
        """The key of its SSH server."""
        return KnownHosts(self.folder / "known_hosts")

    @property
    def about(self) -> dict[str, str]:
        """What runs on it say of where they ran."""
        address = str(self.address or "")
        return {"name": self.name, "provider": self.provider, "address": address}

    def connect(self) -> Connection:
        """Log in; see `Connection.open`.  `MachineError` where it was not brought up."""
        if self.address is None:
            raise MachineError(
                f"machine {self.name} is not up", remedy=f"testbed vm up --name {self.name}"
            )
        return Connection.open(self.address, self.known_hosts, name=self.name)

    def save(self) -> None:
        """Write its machine.json."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        address = self.address.as_dict() if self.address else None
        facts = {"provider": self.provider, "options": self.options, "address": address}
        beside = self.folder / "machine.json.part"
        beside.write_text(json.dumps(facts, indent=1))
        beside.replace(self.folder / "machine.json")

    def forget(self) -> None:
        """Remove all that is kept of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else brings it up or down meanwhile; `MachineError` where somebody does."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self.folder / "lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MachineError(
                    f"machine {self.name} is being brought up or down by another command"
                ) from None
            yield


def every() -> list[Machine]:
    """All machines there are, by name."""
    return [_read(path.parent.name) for path in sorted(_folder().glob("*/machine.json"))]


def find(name: str = "") -> Machine:
    """The machine called `name`; without one, the only one or the one called "default".

    Raises `UserError` where there is none, or more than one to choose from.
    """
    names = [each.name for each in every()]
    if not name and names:
        if len(names) > 1 and USUAL not in names:
            raise UserError("which machine?", remedy=f"--name {' or '.join(names)}")
        name = USUAL if USUAL in names else names[0]
    if name not in names:
        known = f"there is {', '.join(names)}" if names else "testbed vm up makes one"
        raise UserError(f"there is no machine {name}".rstrip(), remedy=known)
    return _read(name)


def known(name: str) -> Machine | None:
    """The machine called `name`, if there is one; `ParameterError` for no name at all."""
    if not _NAME.fullmatch(name):
        raise ParameterError(
            f"--name {name}", remedy="up to 32 letters a to z, digits, - and _, no - or _ first"
        )
    return _read(name) if (_folder() / name / "machine.json").is_file() else None


def _read(name: str) -> Machine:
    path = _folder() / name / "machine.json"
    try:
        facts = json.loads(path.read_text())
        address = Address.of(facts["address"]) if facts["address"] else None
        return Machine(name, facts["provider"], facts["options"], address)
    except (ValueError, KeyError, TypeError) as error:
        raise MachineError(
            f"{path} cannot be read: {error}", remedy=f"remove {path.parent}"
        ) from error


def _folder() -> Path:
    return cache.folder() / "machines"
