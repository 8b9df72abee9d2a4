"""What the classes of MPTCP options share: the error, the frame, and packing with clear errors."""

from __future__ import annotations

import struct

from testbed.errors import TestbedError

KIND = 30


class OptionError(TestbedError):
    """Bytes that are not a well-formed TCP or MPTCP option, or a value no option can carry."""


def frame(subtype: int, low: int, rest: bytes = b"") -> bytes:
    """Kind, length, the subtype over the four bits that share its byte, and the rest."""
    return bytes((KIND, 3 + len(rest), subtype << 4 | low)) + rest


def pack(layout: str, *values: int) -> bytes:
    """`struct.pack`; a value out of its field's range is an `OptionError`."""
    try:
        return struct.pack(layout, *values)
    except struct.error as error:
        raise OptionError(f"a field is out of its range ({error})") from error


def unpack(layout: str, name: str, body: bytes) -> tuple[int, ...]:
    """`struct.unpack` of a whole body; another length than the layout's is an `OptionError`."""
    if len(body) != struct.calcsize(layout):
        raise OptionError(f"{name} of {len(body) + 2} bytes: no form has this length")
    return struct.unpack(layout, body)
