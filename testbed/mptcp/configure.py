"""How Multipath TCP is set up in a node: kernel settings, endpoints, congestion control.

Settings are the namespace's own; a new namespace starts with the kernel's defaults, also where
the machine's were changed.  Routes are not set here: a multihomed node needs a routing table per
source address before any of its subflows can use its second path (`testbed.network` adds them).
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable
from typing import Literal, Protocol

from testbed.errors import FeatureError, KernelError, ParameterError
from testbed.kernel import NetworkNamespace
from testbed.mptcp.path_manager import EndpointFlag, PathManager

MAX_SUBFLOWS = 8
PathManagerKind = Literal["kernel", "userspace"]


class Interface(Protocol):
    """What an interface must tell to become an endpoint; `testbed.network`'s do."""

    @property
    def name(self) -> str:
        """Its name in its node."""

    @property
    def index(self) -> int:
        """Its number in its node."""

    @property
    def ip(self) -> str | None:
        """Its IPv4 address, without a prefix length."""

    @property
    def ip6(self) -> str | None:
        """Its IPv6 address, without a prefix length."""


def configure(
    namespace: NetworkNamespace,
    *,
    enabled: bool | None = None,
    path_manager: PathManagerKind | None = None,
    checksums: bool | None = None,
    add_addr_timeout_s: int | None = None,
    close_timeout_s: int | None = None,
    stale_loss_count: int | None = None,
    congestion: str = "",
) -> None:
    """Set what is given; all of it counts for connections made from now on.

    `add_addr_timeout_s`: an unanswered ADD_ADDR is sent again after it.  `close_timeout_s`: a
    connection without any subflow lives that long (the default is 60 s), so a break-before-make
    hand-over must be over by then.  `stale_loss_count`: retransmission time-outs after which a
    subflow is passed over.

    Raises `FeatureError` where the kernel has no MPTCP.
    """
    settings = {
        "enabled": enabled,
        "checksum_enabled": checksums,
        "add_addr_timeout": add_addr_timeout_s,
        "close_timeout": close_timeout_s,
        "stale_loss_cnt": stale_loss_count,
    }
    for name, value in settings.items():
        if value is not None:
            _set(namespace, name, int(value))
    if path_manager is not None:
        set_path_manager(namespace, path_manager)
    if congestion:
        pin_congestion_control(namespace, congestion)


def set_path_manager(namespace: NetworkNamespace, kind: PathManagerKind) -> None:
    """Choose who manages the connections made from now on; those that exist keep theirs."""
    if kind not in ("kernel", "userspace"):
        raise ParameterError(
            f"path manager {kind!r} is unknown", remedy="use 'kernel' or 'userspace'"
        )
    try:
        namespace.sysctl("net.mptcp.path_manager", kind)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        _set(namespace, "pm_type", int(kind == "userspace"))  # before Linux 6.15


def _set(namespace: NetworkNamespace, name: str, value: int) -> None:
    try:
        namespace.sysctl(f"net.mptcp.{name}", value)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        raise FeatureError(
            f"the kernel has no setting net.mptcp.{name}",
            remedy="use a kernel with CONFIG_MPTCP (5.19 or later for path managers)",
        ) from error


def pin_congestion_control(namespace: NetworkNamespace, name: str = "reno") -> None:
    """Make `name` the default of the namespace's sockets, so that no machine's default leaks in.

    Only algorithms the machine's owner allowed to everybody can be a default (reno always is);
    others are set per socket (`sockets.connect(congestion=...)`) or per route.
    """
    try:
        namespace.sysctl("net.ipv4.tcp_congestion_control", name)
    except KernelError as error:
        if error.errno not in (errno.EPERM, errno.ENOENT):
            raise
        allowed = namespace.sysctl("net.ipv4.tcp_allowed_congestion_control")
        raise ParameterError(
            f"congestion control {name!r} cannot be the default of a namespace here",
            remedy=f"use one of {allowed.split()}, or set it per socket",
        ) from error


def configure_endpoints(
    namespace: NetworkNamespace,
    interfaces: Iterable[Interface],
    *,
    flags: EndpointFlag = EndpointFlag.SUBFLOW,
    backup: Collection[str] = (),
) -> None:
    """Make every address of `interfaces` an endpoint of the kernel's path manager.

    `flags` as in ip-mptcp(8): SUBFLOW where the node opens connections, SIGNAL where it accepts
    them and announces its addresses.  Interfaces named in `backup` are used only when the others
    fail.  Limits are raised to the kernel's maximum, so that every path is used.
    """
    with PathManager(namespace) as manager:
        manager.set_limits(subflows=MAX_SUBFLOWS, add_addr_accepted=MAX_SUBFLOWS)
        for interface in interfaces:
            extra = EndpointFlag.BACKUP if interface.name in backup else EndpointFlag(0)
            for address in filter(None, (interface.ip, interface.ip6)):
                manager.add_endpoint(address, flags | extra, interface=interface.index)
