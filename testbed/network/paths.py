"""Shortest paths between all routers and all segments, and tables made small without changing them.

Everything here is numbers: routers 0, 1, ... and segments 0, 1, ...; what they are called and
which addresses they have is `addressing`'s business.  Of several shortest paths the one whose
first link was made first is taken, by every router and for every destination alike, which lets
tables aggregate well; equal-cost multipath is not built.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
CONNECTED = -1  # no next hop: a segment of one's own, or one that cannot be reached
_FAR = 1 << 20


def next_hops(segments: Sequence[Sequence[int]], routers: int) -> tuple[Array, list[Hop]]:
    """First hops of shortest paths; `segments` lists each segment's routers.

    Returns an array of shape (routers, segments) that holds places in the list of hops, or
    CONNECTED, and that list.
    """
    hops, leaving = _hops(segments, routers)
    apart = _distances(leaving, hops, routers)
    # to a segment is to the nearest of its routers
    nearest = np.full((routers, len(segments)), CONNECTED, np.int32)
    away = np.full((routers, len(segments)), _FAR, np.int32)
    for place, members in enumerate(segments):
        for member in members:
            closer = apart[:, member] < away[:, place]
            nearest[closer, place] = member
            away[closer, place] = apart[closer, member]
    first = _first_hops(leaving, hops, apart)
    rows = np.arange(routers)[:, None]
    chosen = np.where(nearest == CONNECTED, CONNECTED, first[rows, nearest])
    return np.where(away == 0, CONNECTED, chosen), hops


Hop = tuple[int, int, int]
"""From a router, over a segment, to a router."""


def _hops(segments: Sequence[Sequence[int]], routers: int) -> tuple[list[Hop], list[list[int]]]:
    """All hops, and for each router those that leave it."""
    hops: list[Hop] = []
    leaving: list[list[int]] = [[] for _ in range(routers)]
    for place, members in enumerate(segments):
        for here in members:
            for there in members:
                if here != there:
                    leaving[here].append(len(hops))
                    hops.append((here, place, there))
    return hops, leaving


def _distances(leaving: list[list[int]], hops: list[Hop], routers: int) -> Array:
    """Hops from each router to each other one (_FAR where there is no path)."""
    near = [list({hops[hop][2] for hop in own}) for own in leaving]
    apart = np.full((routers, routers), _FAR, np.int32)
    for start in range(routers):
        away = {start: 0}
        waiting = deque((start,))
        while waiting:
            here = waiting.popleft()
            further = away[here] + 1
            for there in near[here]:
                if there not in away:
                    away[there] = further
                    waiting.append(there)
        apart[start, list(away)] = list(away.values())
    return apart


def _first_hops(leaving: list[list[int]], hops: list[Hop], apart: Array) -> Array:
    """The hop with which a shortest path from a router to a router begins: (routers, routers)."""
    first = np.full_like(apart, CONNECTED)
    for here, own in enumerate(leaving):
        for hop in reversed(own):  # so that the first one made has the last word
            first[here, apart[hops[hop][2]] == apart[here] - 1] = hop
    return first


def aggregate(blocks: Array) -> Iterator[tuple[int, Array, Array, Array]]:
    """Tables over equal blocks of addresses, sibling blocks with one next hop merged.

    `blocks` has shape (routers, blocks) and holds next hops, CONNECTED where there is no route.
    Only where both halves of a larger block have the same next hop are they merged: the tables
    say the same about every address.  Yields, for each size of block from the smallest on, how
    many times it was doubled and three arrays of equal length: router, first block, next hop.
    """
    doubled = 0
    while blocks.shape[1]:
        if blocks.shape[1] % 2:
            blocks = np.pad(blocks, ((0, 0), (0, 1)), constant_values=CONNECTED)
        left, right = blocks[:, ::2], blocks[:, 1::2]
        merged = np.where(left == right, left, CONNECTED)
        alone = np.where(np.repeat(merged, 2, axis=1) == CONNECTED, blocks, CONNECTED)
        router, block = np.nonzero(alone != CONNECTED)
        yield doubled, router, block << doubled, alone[router, block]
        if not (merged != CONNECTED).any():
            return
        blocks, doubled = merged, doubled + 1


def neighbourhoods(segments: Sequence[Sequence[int]], routers: int) -> list[list[int]]:
    """Places of segments in groups, those near each other one after the other.

    First the segments of hosts, a group for each router, then links between routers, each with
    the end that has more of them; routers in the order of a walk through a tree of shortest
    paths.  Blocks of addresses given in this order have few next hops.
    """
    degree = [0] * routers
    for members in segments:
        for router in members:
            degree[router] += len(members) - 1
    hops, leaving = _hops(segments, routers)
    position: dict[int, int] = {}
    for root in sorted(range(routers), key=degree.__getitem__, reverse=True):
        if root not in position:
            for router in _walk(root, leaving, hops):
                position[router] = len(position)
    groups: dict[tuple[bool, int], list[int]] = {}
    for place, members in enumerate(segments):
        owner = min(((-degree[r], position[r]) for r in members), default=(0, routers))[1]
        groups.setdefault((len(members) > 1, owner), []).append(place)
    return [groups[key] for key in sorted(groups)]


def _walk(root: int, leaving: list[list[int]], hops: list[Hop]) -> Iterator[int]:
    """Routers of a breadth-first tree, each before its subtree, subtrees one after the other."""
    children: dict[int, list[int]] = {root: []}
    waiting = deque((root,))
    while waiting:
        here = waiting.popleft()
        for there in (hops[hop][2] for hop in leaving[here]):
            if there not in children:
                children[there] = []
                children[here].append(there)
                waiting.append(there)
    stack = [root]
    while stack:
        here = stack.pop()
        yield here
        stack += reversed(children[here])
