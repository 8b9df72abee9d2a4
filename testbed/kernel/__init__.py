"""What the other rooms need from the Linux kernel and the standard library does not give:
namespaces as file descriptors, rtnetlink in bulk, generic netlink.

Everything here is a thin, typed layer over system calls.  Policy (what a host, a link or an
experiment is) belongs to the rooms above.
"""

from testbed.kernel.genetlink import GenericNetlink
from testbed.kernel.namespaces import NetworkNamespace, setns, unshare
from testbed.kernel.rtnetlink import RtNetlink

__all__ = ["GenericNetlink", "NetworkNamespace", "RtNetlink", "setns", "unshare"]
