"""What large networks run into in Linux, and from which size on.

More ports than a bridge has are refused by `validate`; the sandbox lifts the limit of open files;
what else there is to do is done by `Network`, when these say so.
"""

from __future__ import annotations

from collections.abc import Iterable

from testbed.network.addressing import Segment

_NEIGHBOURS = 512  # gc_thresh2: from here on the kernel begins to throw entries away
_CROWD = 1023  # hosts on one segment: each one's multicast is copied to all others


def may_overflow_neighbours(parts: Iterable[Segment]) -> bool:
    """Could nodes have more neighbours, all in all, than the kernel keeps?"""
    return sum(len(part) * (len(part) - 1) for part in parts) > _NEIGHBOURS


def crowded(hosts: int, routed: bool) -> bool:
    """Would multicast that hosts send by themselves (MLD, router solicitations) take minutes?"""
    return not routed and hosts > _CROWD
