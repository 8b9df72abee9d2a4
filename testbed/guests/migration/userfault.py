"""May post-copy be had here?  It takes userfaultfd(2) from the kernel, also for its own faults."""

from __future__ import annotations

import ctypes
import errno
import functools
import os

from testbed.errors import FeatureError

_SYS_USERFAULTFD = 323  # x86_64
_libc = ctypes.CDLL(None, use_errno=True)


def require_userfault() -> None:
    """Raise `FeatureError` where the kernel refuses what post-copy needs."""
    if why_not := why_no_userfault():
        raise FeatureError(
            f"no post-copy: {why_not}",
            remedy="pre-copy; or run as root, or sysctl vm.unprivileged_userfaultfd=1",
        )


@functools.cache
def why_no_userfault() -> str:
    """Why the kernel refuses it to this process; "" where it does not."""
    descriptor = _libc.syscall(_SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor >= 0:
        os.close(descriptor)
        return ""
    code = ctypes.get_errno()
    if code == errno.EPERM:
        return "the kernel keeps userfaultfd to root"
    return f"userfaultfd: {os.strerror(code)}"
