"""The kernel's MPTCP path manager by generic netlink: limits, endpoints and the commands with
which a program manages the subflows of one connection itself.

Which of the two a connection obeys is fixed when it is made, by `net.mptcp.path_manager` (see
`configure.path_manager`): endpoints and limits serve connections made under `kernel`, the
commands that take a token those made under `userspace`.  What the path manager tells is in
`events`; keep an `EventMonitor` open in a namespace of the userspace kind, for the kernel refuses
joins there while nobody listens.

Protocol: include/uapi/linux/mptcp_pm.h, Documentation/netlink/specs/mptcp_pm.yaml.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from testbed.closing import Closing
from testbed.errors import KernelError
from testbed.kernel import GenericNetlink, NetworkNamespace
from testbed.kernel.genetlink import NLM_F_DUMP, Reply, nested
from testbed.kernel.rtnetlink import attribute, attributes

FAMILY = "mptcp_pm"


class _Command(IntEnum):
    ADD_ADDR = 1
    DEL_ADDR = 2
    GET_ADDR = 3
    FLUSH_ADDRS = 4
    SET_LIMITS = 5
    GET_LIMITS = 6
    SET_FLAGS = 7
    ANNOUNCE = 8
    REMOVE = 9
    SUBFLOW_CREATE = 10
    SUBFLOW_DESTROY = 11


_ADDR, _RCV_ADD_ADDRS, _SUBFLOWS, _TOKEN, _LOC_ID, _ADDR_REMOTE = 1, 2, 3, 4, 5, 6
_FAMILY_ATTR, _ID, _ADDR4, _ADDR6, _PORT, _FLAGS, _IF_INDEX = 1, 2, 3, 4, 5, 6, 7

_REMEDIES = {
    (_Command.SUBFLOW_CREATE, errno.ENOTCONN): "wait for the connection's ESTABLISHED event, "
    "which comes with the first data",
    (_Command.SUBFLOW_DESTROY, errno.ESRCH): "no such subflow, or no such connection in this "
    "namespace",
}
_WRONG_MANAGER = (
    "the connection is under the kernel's path manager: "
    "set net.mptcp.path_manager=userspace before it is made"
)


_MAPPED = "::ffff:"


class EndpointFlag(IntFlag):
    """What the kernel's path manager does with an endpoint (ip-mptcp(8))."""

    SIGNAL = 1
    SUBFLOW = 2
    BACKUP = 4
    FULLMESH = 8
    IMPLICIT = 16
    LAMINAR = 32


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An address the kernel's path manager knows; `interface` is an index, 0 for none."""

    id: int
    address: str
    flags: EndpointFlag
    port: int = 0
    interface: int = 0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far the kernel's path manager goes, per connection (each at most 8)."""

    subflows: int
    add_addr_accepted: int


class PathManager(Closing):
    """The path manager of one namespace (of the calling thread's where none is given).

    Every method raises `KernelError` with the kernel's own words where it refuses.
    """

    def __init__(self, namespace: NetworkNamespace | None = None) -> None:
        with namespace or nullcontext():
            self._netlink = GenericNetlink(FAMILY)
        self._lock = threading.Lock()  # a gate's thread asks beside its owner's

    def close(self) -> None:
        """Close the netlink socket."""
        self._netlink.close()

    def _run(self, command: _Command, *parts: bytes, what: str = "", flags: int = 0) -> list[Reply]:
        try:
            with self._lock:
                return self._netlink.request(command, b"".join(parts), flags=flags)
        except KernelError as error:
            number = error.errno or 0
            remedy = _REMEDIES.get((command, number), "")
            if not remedy and "not selected" in error.message:  # EINVAL has other causes too
                remedy = _WRONG_MANAGER
            message = f"MPTCP path manager, {command.name} {what}: {error.message}"
            raise KernelError(number, message, remedy=remedy) from error

    # -- the kernel's own path manager: limits and endpoints ------------------------------------

    def limits(self) -> Limits:
        """Limits of the namespace (a new one has 2 subflows and accepts no ADD_ADDR)."""
        found = attributes(self._run(_Command.GET_LIMITS)[0].attributes)
        return Limits(
            subflows=_u32(found[_SUBFLOWS]), add_addr_accepted=_u32(found[_RCV_ADD_ADDRS])
        )

    def set_limits(
        self, *, subflows: int | None = None, add_addr_accepted: int | None = None
    ) -> None:
        """Change the limits that are given; they count for connections made from now on."""
        parts = []
        if add_addr_accepted is not None:
            parts.append(attribute(_RCV_ADD_ADDRS, add_addr_accepted))
        if subflows is not None:
            parts.append(attribute(_SUBFLOWS, subflows))
        what = f"subflows={subflows} add_addr_accepted={add_addr_accepted}"
        self._run(_Command.SET_LIMITS, *parts, what=what)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Endpoints of the namespace."""
        replies = self._run(_Command.GET_ADDR, flags=NLM_F_DUMP)
        return tuple(_endpoint(attributes(reply.attributes)[_ADDR]) for reply in replies)

    def add_endpoint(
        self,
        address: str,
        flags: EndpointFlag = EndpointFlag.SUBFLOW,
        *,
        id: int = 0,
        port: int = 0,
        interface: int = 0,
    ) -> None:
        """Add an endpoint; id 0 lets the kernel choose one."""
        endpoint = _address(
            _ADDR, address, id=id or None, port=port, flags=flags, interface=interface
        )
        self._run(_Command.ADD_ADDR, endpoint, what=address)

    def delete_endpoint(self, id: int, address: str = "") -> None:
        """Delete endpoint `id`, and close its subflows; id 0 needs the initial address."""
        self._run(_Command.DEL_ADDR, _address(_ADDR, address, id=id), what=f"id {id} {address}")

    def flush_endpoints(self) -> None:
        """Delete every endpoint."""
        self._run(_Command.FLUSH_ADDRS)

    def change_endpoint(
        self, address: str = "", *, id: int | None = None, backup: bool, fullmesh: bool = False
    ) -> None:
        """Change the flags of the endpoint with this address or id, live subflows included."""
        flags = EndpointFlag.BACKUP * backup | EndpointFlag.FULLMESH * fullmesh
        endpoint = _address(_ADDR, address, id=id, flags=flags)
        self._run(_Command.SET_FLAGS, endpoint, what=address or f"id {id}")

    # -- connections managed from userspace -----------------------------------------------------

    def addresses(self, token: int) -> tuple[Endpoint, ...]:
        """Local addresses given to a connection, by `create_subflow` or `announce`.

        The initial subflow's is not among them: its id is 0.  Needs Linux 6.10.
        """
        replies = self._run(_Command.GET_ADDR, _token(token), flags=NLM_F_DUMP)
        return tuple(_endpoint(attributes(reply.attributes)[_ADDR]) for reply in replies)

    def announce(self, token: int, address: str, id: int, *, port: int = 0) -> None:
        """Send ADD_ADDR for `address` on the connection."""
        endpoint = _address(_ADDR, address, id=id, port=port, flags=EndpointFlag.SIGNAL)
        self._run(_Command.ANNOUNCE, _token(token), endpoint, what=f"{address} id {id}")

    def remove(self, token: int, id: int) -> None:
        """Send REMOVE_ADDR for an address announced before, and close its subflows."""
        part = attribute(_LOC_ID, struct.pack("=B", id))
        self._run(_Command.REMOVE, _token(token), part, what=f"id {id}")

    def create_subflow(
        self, token: int, local: str, remote: tuple[str, int], *, local_id: int
    ) -> None:
        """Begin a join from `local` (its address id `local_id`) to `remote`.

        Returns at once; success is a SUB_ESTABLISHED event, failure a SUB_CLOSED one.
        """
        parts = _address(_ADDR, local, id=local_id), _address(_ADDR_REMOTE, *_named(remote))
        what = f"{local} to {remote[0]} port {remote[1]}"
        self._run(_Command.SUBFLOW_CREATE, _token(token), *parts, what=what)

    def destroy_subflow(self, token: int, local: tuple[str, int], remote: tuple[str, int]) -> None:
        """Close one subflow; what it had not delivered goes over the others."""
        what = f"{local[0]} port {local[1]} to {remote[0]} port {remote[1]}"

        def destroy(prefix: str) -> None:
            own = _address(_ADDR, prefix + local[0], port=local[1])
            peer = _address(_ADDR_REMOTE, prefix + remote[0], port=remote[1])
            self._run(_Command.SUBFLOW_DESTROY, _token(token), own, peer, what=what)

        try:
            destroy("")
        except KernelError as error:
            # A socket of a dual-stack listener is known by its IPv4-mapped addresses only.
            if error.errno != errno.ESRCH or ":" in local[0]:
                raise
            destroy(_MAPPED)

    def set_backup(
        self, token: int, local: tuple[str, int], remote: tuple[str, int], *, backup: bool
    ) -> None:
        """Send MP_PRIO on one subflow.  A preference: it confines nothing (see `gate`)."""
        own = _address(_ADDR, *_named(local), flags=EndpointFlag.BACKUP * backup)
        peer = _address(_ADDR_REMOTE, *_named(remote))
        self._run(_Command.SET_FLAGS, _token(token), own, peer, what=f"backup={backup}")


def _named(address: Sequence[str | int]) -> tuple[str, int | None, int]:
    return str(address[0]), None, int(address[1])


def _token(token: int) -> bytes:
    return attribute(_TOKEN, token)


def _u32(data: bytes) -> int:
    return int(struct.unpack("=I", data)[0])


def _address(
    kind: int,
    address: str,
    id: int | None = None,
    port: int = 0,
    *,
    flags: int | None = None,
    interface: int = 0,
) -> bytes:
    parts = []
    if address:
        ip = ipaddress.ip_address(address)
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        parts.append(attribute(_FAMILY_ATTR, struct.pack("=H", family)))
        parts.append(attribute(_ADDR4 if ip.version == 4 else _ADDR6, ip.packed))
    if id is not None:
        parts.append(attribute(_ID, struct.pack("=B", id)))
    if port:
        parts.append(attribute(_PORT, struct.pack("=H", port)))
    if flags is not None:
        parts.append(attribute(_FLAGS, flags))
    if interface:
        parts.append(attribute(_IF_INDEX, interface))
    return nested(kind, *parts)


def _endpoint(data: bytes) -> Endpoint:
    found = attributes(data)
    return Endpoint(
        id=found[_ID][0],
        address=str(ipaddress.ip_address(found[_ADDR4] if _ADDR4 in found else found[_ADDR6])),
        flags=EndpointFlag(_u32(found[_FLAGS])),
        port=struct.unpack("=H", found[_PORT][:2])[0] if _PORT in found else 0,
        interface=_u32(found[_IF_INDEX]) if _IF_INDEX in found else 0,
    )
