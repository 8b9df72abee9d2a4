"""What the viewer sees: the picture, and under it a strip that tells how it goes.

The strip has the position, the buffer as a bar (a block for each second), the bitrate, stalls and
the connection.  The screen may be exchanged for another one meanwhile (`follow`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from traffic.live.player import font
from traffic.live.player.canvas import Canvas, colour
from traffic.live.player.h264 import Picture

_PAPER, _INK = colour(16, 16, 24), colour(230, 230, 230)
_COLOURS = {"playing": colour(60, 200, 90), "stalled": colour(230, 60, 50)}
_WAITING = colour(230, 180, 40)
_LINE = font.HEIGHT + 3  # dots, with space around
_CHARACTERS = 40  # of a line, which sets the size of the letters


class Screen(Protocol):
    """A display, or something like one."""

    @property
    def mode(self) -> tuple[int, int]:
        """Its width and height now."""

    @property
    def canvas(self) -> Canvas:
        """What is drawn on."""

    def follow(self) -> bool:
        """Adapt to another resolution; whether there was one."""


class View:
    """Draws on a screen."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._last: Picture | None = None
        self._lay_out()

    @property
    def mode(self) -> str:
        """The screen's resolution ("480x320")."""
        width, height = self._screen.mode
        return f"{width}x{height}"

    def follow(self) -> None:
        """Draw all anew if the screen's resolution is another one."""
        if self._screen.follow():
            self._lay_out()
            if self._last is not None:
                self.show(self._last)

    def show(self, picture: Picture) -> None:
        """Draw a decoded picture, as large as fits above the strip."""
        self._last = picture
        canvas, top = self._screen.canvas, self._strip
        scale = min(canvas.width / picture.width, top / picture.height)
        width, height = int(picture.width * scale), int(picture.height * scale)
        canvas.picture(picture, (canvas.width - width) // 2, (top - height) // 2, width, height)

    def tell(self, report: Mapping[str, Any]) -> None:
        """Draw the strip; `report` has the fields of the player's reports."""
        canvas, size, gap = self._screen.canvas, self._size, 2 * self._size
        line, first = _LINE * size, self._strip + gap
        position, buffer = report["position_s"] or 0.0, report["buffer_s"]
        head = f"{position:.1f} s {report['state']}".ljust(_CHARACTERS // 2)
        canvas.text(gap, first, head, size, _INK, _PAPER)
        self._bar(gap + len(head) * (font.WIDTH + 1) * size, first, buffer, report["state"])
        rate = (report["bitrate"] or 0) / 1e3
        foot = f"{rate:.0f} kbit/s  stalls {report['stalls']}  {report['protocol']} {self.mode}"
        canvas.text(gap, first + line, foot.ljust(_CHARACTERS), size, _INK, _PAPER)

    def _bar(self, x: int, y: int, buffer_s: float, state: str) -> None:
        size, canvas = self._size, self._screen.canvas
        room = canvas.width - x - 2 * size
        full = min(room, int(buffer_s * 8 * size))  # eight dots a second
        paint = _COLOURS.get(state, _WAITING)
        canvas.fill(x, y, full, font.HEIGHT * size, paint)
        canvas.fill(x + full, y, room - full, font.HEIGHT * size, _PAPER)

    def _lay_out(self) -> None:
        canvas = self._screen.canvas
        self._size = max(1, canvas.width // (_CHARACTERS * (font.WIDTH + 1)))
        self._strip = canvas.height - 2 * _LINE * self._size - 2 * self._size
        canvas.fill(0, 0, canvas.width, canvas.height, _PAPER)
