"""Where an experiment runs, and how it vanishes.

A sandbox is a private set of network, process, mount, host-name and IPC namespaces (and, for an
ordinary user, a user namespace in which that user is root) with its own /proc, /sys, /run and
/dev/shm.  Its first process watches a pipe held by whoever started it.  When that one ends, even
by SIGKILL, the pipe closes, the first process exits, and the kernel removes every process,
interface, mount and namespace of the experiment.  Nothing is cleaned up, because nothing can
be left; and because nothing is shared, sandboxes do not meet.

    call(function, *args)       run a Python function in a new sandbox, return its result
    Sandbox().popen(argv)       start a command in a new sandbox
    ensure()                    first line of a script: start it again inside a sandbox
    inside()                    are we in one?
"""

from testbed.sandbox._child import inside
from testbed.sandbox._parent import Sandbox, call, ensure

__all__ = ["Sandbox", "call", "ensure", "inside"]
