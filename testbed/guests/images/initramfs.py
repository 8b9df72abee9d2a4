"""Archives in cpio's "newc" format, as the kernel unpacks them into its first root file system.

The same entries give the same bytes: no times, no owners, inode numbers by order.
Format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One thing in the archive; `path` has no leading slash.

    `data` is a file's content or a symbolic link's target, `device` major and minor number of a
    device node.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str) -> Entry:
    """An empty directory."""
    return Entry(path, stat.S_IFDIR | 0o755)


def file(path: str, data: bytes, *, executable: bool = False) -> Entry:
    """A regular file."""
    return Entry(path, stat.S_IFREG | (0o755 if executable else 0o644), data)


def link(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int) -> Entry:
    """A character device node, which only its owner may open."""
    return Entry(path, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive of `entries`, with the directories that lead to them, sorted by path."""
    wanted = {entry.path: entry for entry in entries}
    for path in list(wanted):
        for parent in _parents(path):
            wanted.setdefault(parent, directory(parent))
    chosen = [wanted[path] for path in sorted(wanted)]
    parts = [_packed(number, entry) for number, entry in enumerate(chosen, 1)]
    return b"".join([*parts, _packed(0, Entry("TRAILER!!!", 0))])


def _parents(path: str) -> Iterable[str]:
    words = path.split("/")
    return ("/".join(words[:length]) for length in range(1, len(words)))


def _packed(number: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device)
    head = b"070701" + b"".join(b"%08X" % field for field in (*fields, len(name), 0))
    return _padded(head + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
