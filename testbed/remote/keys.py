"""Key pairs, and what is known of the keys of hosts: a file of the project's own per machine."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.errors import FeatureError, MachineError

if TYPE_CHECKING:
    from paramiko import PKey

_USERS = Path("~/.ssh/known_hosts")


def make_pair(path: Path) -> str:
    """A new Ed25519 key pair, the private key in `path`; the public one as a line of OpenSSH's.

    One that is there is kept.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = path.with_suffix(".pub")
    if path.is_file() and public.is_file():
        return public.read_text().strip()
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private)
    line = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    public.write_bytes(line + b" liquidnet\n")
    return public.read_text().strip()


def fingerprint(key: PKey) -> str:
    """As OpenSSH shows it: SHA256:..."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


class KnownHosts:
    """Keys of one machine's SSH server, in a file of OpenSSH's format.

    The first key seen is kept only where somebody vouches for it: the user's own known_hosts,
    a `fingerprint` that was given, or whoever made the machine (`trust_first`).
    """

    def __init__(self, path: Path, *, users: Path = _USERS) -> None:
        self.path = path
        self._users = users.expanduser()

    def check(self, name: str, key: PKey, *, vouched: str = "", trust_first: bool = False) -> None:
        """Raise `MachineError` unless `key` is the one that is known, or is vouched for.

        `name` is the host's, "[host]:port" where the port is not 22.
        """
        known = _keys_of(self.path, name)
        if known:
            if key.asbytes() not in known:
                raise MachineError(
                    f"the host key of {name} is not the one known ({fingerprint(key)} now)",
                    remedy=f"if the machine was made anew, remove {self.path}",
                )
            return
        if vouched and vouched != fingerprint(key):
            raise MachineError(f"{name} has another host key: {fingerprint(key)}")
        if not (vouched or trust_first or key.asbytes() in _keys_of(self._users, name)):
            raise FeatureError(
                f"the host key of {name} is not known: {fingerprint(key)}",
                remedy=f"if that is right, add --fingerprint {fingerprint(key)}",
            )
        self.add(name, key)

    def add(self, name: str, key: PKey) -> None:
        """Remember a key."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{name} {key.get_name()} {key.get_base64()}\n")


def _keys_of(path: Path, name: str) -> set[bytes]:
    from paramiko import HostKeys

    if not path.is_file():
        return set()
    entry = HostKeys(str(path)).lookup(name)
    return {entry[kind].asbytes() for kind in entry} if entry else set()
