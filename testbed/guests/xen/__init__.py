"""The Xen back end: domains made by xl, on this machine's dom0 or on one that is a guest of ours.

config      what xl is told of a machine
xl          what xl answers
host        a Xen host; this machine as one
dom0        a guest of ours as one
console     what is on a domain's console told apart: text, the agent's answers, reports
line        carries the console
vm          one domain
copy        a saved state goes from one Xen host to another
"""

from testbed.guests.xen.copy import Copied, copy
from testbed.guests.xen.dom0 import BRIDGE, GuestHost
from testbed.guests.xen.host import LocalHost, XenHost
from testbed.guests.xen.vm import XenVm

__all__ = ["BRIDGE", "Copied", "GuestHost", "LocalHost", "XenHost", "XenVm", "copy"]
