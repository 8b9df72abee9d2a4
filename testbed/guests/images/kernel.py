"""The file a guest's kernel starts from.

A kernel that is packed by xz takes a translated guest five seconds to unpack.  It is unpacked
here, once; QEMU starts it by its PVH entry.  Other ways of packing cost little, and stay.
Format: Documentation/arch/x86/boot.rst of the kernel ("payload_offset").
"""

from __future__ import annotations

import lzma
import struct

_XZ = b"\xfd7zXZ\0"
_SECTORS_AT, _PAYLOAD_AT = 0x1F1, 0x248


def bootable(image: bytes) -> bytes:
    """The kernel in a bzImage, unpacked where that is worth it, else the image as it is."""
    payload = _payload(image)
    return lzma.LZMADecompressor().decompress(payload) if payload.startswith(_XZ) else image


def _payload(image: bytes) -> bytes:
    offset, size = struct.unpack_from("<II", image, _PAYLOAD_AT)
    start = (image[_SECTORS_AT] + 1) * 512 + offset
    return image[start : start + size]
