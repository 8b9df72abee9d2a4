"""A guest's display: QEMU's bochs-display (or VGA), driven from here through its PCI memory.

The device has the screen's memory in one region and in another its mode registers and the EDID
of the screen that is plugged in (QEMU: docs/specs/standard-vga).  No driver of the kernel is
needed, which the small kernels for virtual machines lack.  The EDID is the device's, not the
guest's: after a move it is that of the new device's screen, and `Display.follow` adapts to it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from typing import NamedTuple

from testbed.errors import FeatureError
from traffic.live.player.canvas import PIXEL, Canvas

_DEVICES = Path("/sys/bus/pci/devices")
_IDS = ("0x1234", "0x1111")
_EDID_BYTES = 128
_EDID_HEAD = b"\0" + b"\xff" * 6 + b"\0"
_REGISTERS = 0x500
_XRES, _YRES, _BPP, _ENABLE, _VIRTUAL_WIDTH = 1, 2, 3, 4, 6
_OFF, _ON = 0x00, 0x41  # with the linear frame buffer, cleared


class Mode(NamedTuple):
    """A resolution, in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def preferred_mode(edid: bytes) -> Mode | None:
    """The first detailed timing of an EDID (VESA E-EDID 3.10.2); None where that is none."""
    if edid[:8] != _EDID_HEAD:
        return None
    mode = Mode(edid[56] | (edid[58] & 0xF0) << 4, edid[59] | (edid[61] & 0xF0) << 4)
    return mode if all(mode) else None


class Display:
    """The guest's screen.  `canvas` is the picture in memory that it shows."""

    def __init__(self, device: Path) -> None:
        _release(device)
        (device / "enable").write_text("1")
        self._memory = _mapped(device / "resource0")
        self._controls = _mapped(device / "resource2")
        self._registers = (ctypes.c_uint16 * 16).from_buffer(self._controls, _REGISTERS)
        self.mode = Mode(0, 0)
        self.canvas: Canvas
        if not self.follow():
            raise FeatureError(
                "the display has no EDID", remedy="start QEMU with bochs-display,edid=on"
            )

    @classmethod
    def open(cls) -> Display:
        """The machine's; `FeatureError` where it has none that is driven from here."""
        for device in sorted(_DEVICES.glob("*")):
            if _identity(device) == _IDS:
                return cls(device)
        raise FeatureError("no bochs-display", remedy="give the guest a display")

    def follow(self) -> bool:
        """Take the mode that the plugged-in screen prefers; whether that is another one."""
        mode = preferred_mode(self._controls[:_EDID_BYTES])
        if mode is None or mode == self.mode:
            return False
        if mode.width * mode.height * PIXEL > len(self._memory):
            raise FeatureError(
                f"{mode} does not fit into the display's {len(self._memory)} bytes",
                remedy="give bochs-display more vgamem",
            )
        values = ((_ENABLE, _OFF), (_BPP, 8 * PIXEL), (_XRES, mode.width), (_YRES, mode.height),
                  (_VIRTUAL_WIDTH, mode.width), (_ENABLE, _ON))  # fmt: skip
        for register, value in values:
            self._registers[register] = value
        self.mode = mode
        self.canvas = Canvas(self._memory, *mode)
        return True


def _identity(device: Path) -> tuple[str, str]:
    vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "device"))
    return vendor, kind


def _release(device: Path) -> None:
    """Take the device from a driver of the kernel's: its memory cannot be mapped otherwise."""
    if (device / "driver").exists():
        (device / "driver" / "unbind").write_text(device.name)


def _mapped(resource: Path) -> mmap.mmap:
    fd = os.open(resource, os.O_RDWR | os.O_SYNC)
    try:
        return mmap.mmap(fd, os.fstat(fd).st_size)
    except OSError as error:
        raise FeatureError(
            f"{resource} cannot be mapped: {error.strerror}", remedy="run the player as root"
        ) from error
    finally:
        os.close(fd)
