"""Decoding H.264 by OpenH264 (libopenh264, through ctypes): coded pictures to planes.

The library's C interface is a table of functions (wels/codec_api.h).  Constrained baseline only,
which is what it decodes and what the server's encoder makes.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from testbed.errors import ExperimentError, FeatureError

LIBRARY = "libopenh264.so.7"
_TRACE_LEVEL = 9  # DECODER_OPTION_TRACE_LEVEL
_SLOTS = ("initialize", "uninitialize", "frame", "frame_no_delay", "frame2", "flush", "parse",
          "frame_ex", "set_option", "get_option")  # fmt: skip


class _VideoProperty(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint), ("kind", ctypes.c_int))


class _Parameters(ctypes.Structure):
    _fields_ = (
        ("restructured", ctypes.c_char_p),
        ("cpu_load", ctypes.c_uint),
        ("target_layer", ctypes.c_ubyte),
        ("concealment", ctypes.c_int),
        ("parse_only", ctypes.c_bool),
        ("property", _VideoProperty),
    )


class _BufferInfo(ctypes.Structure):
    _fields_ = (
        ("status", ctypes.c_int),
        ("time_in", ctypes.c_ulonglong),
        ("time_out", ctypes.c_ulonglong),
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("format", ctypes.c_int),
        ("strides", ctypes.c_int * 2),
        ("planes", ctypes.c_void_p * 3),
    )


class Picture(NamedTuple):
    """A decoded picture (I420), in the decoder's memory: valid until the next one is decoded."""

    width: int
    height: int
    luma: int
    """Address of the first row; `luma_stride` bytes from one row to the next."""
    blue: int
    red: int
    luma_stride: int
    chroma_stride: int

    def plane(self, number: int) -> bytes:
        """A copy of a plane without padding: 0 luma, 1 blue, 2 red difference."""
        halves = 2 if number else 1
        width, height = -(-self.width // halves), -(-self.height // halves)
        stride = self.chroma_stride if number else self.luma_stride
        first = (self.luma, self.blue, self.red)[number]
        return b"".join(ctypes.string_at(first + row * stride, width) for row in range(height))


class Decoder:
    """One decoder.  Give it access units from a key picture on, each in its turn."""

    def __init__(self) -> None:
        library = load(LIBRARY, "libopenh264-7")
        self._handle = ctypes.c_void_p()
        if library.WelsCreateDecoder(ctypes.byref(self._handle)) or not self._handle.value:
            raise FeatureError(f"{LIBRARY} makes no decoder", remedy="reinstall libopenh264-7")
        self._destroy = library.WelsDestroyDecoder
        table = ctypes.cast(self._handle, ctypes.POINTER(ctypes.c_void_p))[0]
        assert table is not None
        self._calls = dict(
            zip(_SLOTS, (ctypes.c_void_p * len(_SLOTS)).from_address(table), strict=True)
        )
        quiet = ctypes.c_int(0)
        self._call("set_option", ctypes.c_int(_TRACE_LEVEL), ctypes.byref(quiet))
        parameters = _Parameters(target_layer=255)
        parameters.property.size = ctypes.sizeof(_VideoProperty)
        parameters.property.kind = 0  # VIDEO_BITSTREAM_AVC
        self._call("initialize", ctypes.byref(parameters))
        # looked up once: it is called for every picture
        self._decode = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int,
            ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(_BufferInfo),
        )(self._calls["frame_no_delay"])  # fmt: skip
        self._planes = (ctypes.c_void_p * 3)()
        self._info = _BufferInfo()

    def decode(self, data: bytes) -> Picture | None:
        """The picture of one access unit; None while the decoder waits for a key picture.

        Raises `ExperimentError` for bytes that cannot be decoded.
        """
        info = self._info
        info.status = 0
        state = self._decode(self._handle, data, len(data), self._planes, ctypes.byref(info))
        if state and state != 0x10:  # dsNoParamSets: no key picture yet
            raise ExperimentError(f"OpenH264 cannot decode a picture (state {state:#x})")
        if info.status != 1:
            return None
        luma, blue, red = (plane or 0 for plane in self._planes)
        return Picture(info.width, info.height, luma, blue, red, *info.strides)

    def close(self) -> None:
        """Give the decoder's memory back."""
        if self._handle.value:
            self._call("uninitialize")
            self._destroy(self._handle)
            self._handle.value = None

    def _call(self, name: str, *arguments: object) -> None:
        function = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(self._calls[name])
        if status := function(self._handle, *arguments):
            raise FeatureError(f"{LIBRARY}: {name} says {status}", remedy="use Debian 12's package")


def load(library: str, package: str) -> ctypes.CDLL:
    """A shared library; `FeatureError` naming the Debian package where there is none."""
    try:
        return ctypes.CDLL(library)
    except OSError as error:
        raise FeatureError(f"no {library}", remedy=f"apt-get install {package}") from error
