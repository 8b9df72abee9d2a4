"""Drawing on memory: rectangles, text, and decoded pictures, scaled (libyuv, through ctypes).

Pixels are 32 bits, blue first (XRGB8888 in little-endian words), rows without padding.  What the
memory is (a display's, or a test's) is the caller's.
"""

from __future__ import annotations

import ctypes
from typing import Any

from traffic.live.player import font
from traffic.live.player.h264 import Picture, load

PIXEL = 4
_FILTER_NONE = 0  # nearest: bilinear takes three times as long in a translated guest
Colour = bytes


def colour(red: int, green: int, blue: int) -> Colour:
    """A pixel."""
    return bytes((blue, green, red, 255))


class Canvas:
    """`width` by `height` pixels of `memory`, a writable buffer of that many at least."""

    def __init__(self, memory: Any, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._pixels = memoryview(memory).cast("B")
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._yuv = load("libyuv.so.0", "libyuv0")
        self._scratch = ctypes.create_string_buffer(0)

    @property
    def stride(self) -> int:
        """Bytes of a row."""
        return self.width * PIXEL

    def fill(self, x: int, y: int, width: int, height: int, paint: Colour) -> None:
        """A rectangle, cut where it leaves the canvas."""
        line = paint * max(0, min(width, self.width - x))
        for row in range(y, min(y + height, self.height)):
            self._put(x, row, line)

    def text(self, x: int, y: int, text: str, size: int, ink: Colour, paper: Colour) -> None:
        """A line of text, `size` pixels a dot, cut at the right end."""
        room = max(0, self.width - x) * PIXEL
        for number, dots in enumerate(font.rows(text)):
            line = b"".join((ink if dot else paper) * size for dot in dots)[:room]
            for row in range(y + number * size, min(y + (number + 1) * size, self.height)):
                self._put(x, row, line)

    def picture(self, picture: Picture, x: int, y: int, width: int, height: int) -> None:
        """A picture in colour, scaled to `width` by `height`, which must lie on the canvas."""
        if x < 0 or y < 0 or x + width > self.width or y + height > self.height:
            raise ValueError(f"{width}x{height} at {x},{y} is not on {self.width}x{self.height}")
        target = ctypes.c_void_p(self._address + y * self.stride + x * PIXEL)
        if (width, height) == (picture.width, picture.height):
            self._convert(picture, target, self.stride)
            return
        row = picture.width * PIXEL
        if len(self._scratch) < row * picture.height:
            self._scratch = ctypes.create_string_buffer(row * picture.height)
        self._convert(picture, self._scratch, row)
        self._yuv.ARGBScale(
            self._scratch, row, picture.width, picture.height,
            target, self.stride, width, height, _FILTER_NONE,
        )  # fmt: skip

    def _convert(self, picture: Picture, target: Any, stride: int) -> None:
        self._yuv.I420ToARGB(
            ctypes.c_void_p(picture.luma), picture.luma_stride,
            ctypes.c_void_p(picture.blue), picture.chroma_stride,
            ctypes.c_void_p(picture.red), picture.chroma_stride,
            target, stride, picture.width, picture.height,
        )  # fmt: skip

    def _put(self, x: int, row: int, line: bytes) -> None:
        at = row * self.stride + x * PIXEL
        self._pixels[at : at + len(line)] = line
