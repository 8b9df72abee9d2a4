"""Segments of the real encoder: demultiplexed, decoded and drawn as ffmpeg's own programs say."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_play import KEY, OTHER, transport_stream

from testbed.errors import ExperimentError, FeatureError
from traffic.live.ladder import Ladder, command_line
from traffic.live.player import font, h264
from traffic.live.player.canvas import PIXEL, Canvas, colour
from traffic.live.player.display import Display, Mode, preferred_mode
from traffic.live.player.h264 import Decoder, Picture
from traffic.live.player.mpegts import PACKET, AccessUnit, TransportError, access_units
from traffic.live.player.screen import View

LADDER = Ladder()
SECONDS = 3


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first seconds of a stream, made as the server has them made, but as fast as can be."""
    place = tmp_path_factory.mktemp("segments")
    words = command_line(LADDER)
    at = words.index("-re")
    words[at : at + 1] = ["-t", str(SECONDS)]
    said = subprocess.run(words, cwd=place, capture_output=True, check=True, text=True)
    assert len(said.stdout.splitlines()) == SECONDS * len(LADDER.rungs)
    return place


def read(segments: Path, rung: int, number: int) -> bytes:
    return (segments / f"{rung}-{number}.ts").read_bytes()


def probe(path: Path) -> list[dict[str, Any]]:
    """The packets of a file, as ffprobe sees them."""
    command = ["ffprobe", "-v", "error", "-show_packets", "-of", "json", str(path)]
    done = subprocess.run(command, capture_output=True, check=True)
    packets: list[dict[str, Any]] = json.loads(done.stdout)["packets"]
    return packets


def planes(data: bytes) -> bytes:
    """All pictures of a file as ffmpeg decodes them (planar, without padding)."""
    command = ["ffmpeg", "-v", "error", "-i", "-", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


# -- transport stream ----------------------------------------------------------------------------


@pytest.mark.parametrize("rung", range(len(LADDER.rungs)))
def test_pictures_and_times_are_those_that_ffprobe_sees(segments: Path, rung: int) -> None:
    for number in range(SECONDS):
        packets = probe(segments / f"{rung}-{number}.ts")
        units = access_units(read(segments, rung, number))
        assert len(units) == len(packets) == LADDER.frame_rate * LADDER.segment_s
        assert [unit.time_s for unit in units] == pytest.approx(
            [float(packet["pts_time"]) for packet in packets], abs=1e-5
        )
        assert [unit.key for unit in units] == ["K" in packet["flags"] for packet in packets]
        assert [len(unit.data) for unit in units] == [int(packet["size"]) for packet in packets]


def test_segments_begin_with_a_key_picture_at_the_same_time_in_all_bitrates(
    segments: Path,
) -> None:
    for number in range(SECONDS):
        for rung in range(len(LADDER.rungs)):
            units = access_units(read(segments, rung, number))
            assert [unit.key for unit in units] == [True] + [False] * (len(units) - 1)
            assert units[0].time_s == number * LADDER.segment_s


def test_bitrates_are_those_of_the_master_playlist(segments: Path) -> None:
    for number, rung in enumerate(LADDER.rungs):
        bits = [8 * len(read(segments, number, second)) for second in range(SECONDS)]
        assert max(bits) <= rung.peak
        assert sorted(bits)[SECONDS // 2] == pytest.approx(LADDER.average(rung), rel=0.25)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 2**33 - 1), st.binary(max_size=700)), max_size=8),
    st.integers(0x20, 0x1FFE).filter(lambda pid: pid not in (0x100, 0x101, 0x1000)),
)
def test_what_was_packed_is_unpacked(pictures: list[tuple[int, bytes]], pid: int) -> None:
    units = [(stamp / 90_000, OTHER + data) for stamp, data in pictures]
    found = access_units(transport_stream(units, pid))
    assert [(unit.time_s, unit.data) for unit in found] == [
        (pytest.approx(time_s), data) for time_s, data in units
    ]


def test_what_is_no_transport_stream_is_said(segments: Path) -> None:
    good = read(segments, 0, 0)
    packets = [good[at : at + PACKET] for at in range(0, len(good), PACKET)]
    lacking = b"".join(packets[:8] + packets[9:])
    for bad in (b"", good[:-1], b"x" + good[1:], lacking):
        with pytest.raises(TransportError):
            access_units(bad)


@given(st.lists(st.tuples(st.integers(0, 10 * PACKET), st.integers(0, 255)), max_size=20))
def test_damaged_bytes_end_in_an_error_or_in_pictures(damages: list[tuple[int, int]]) -> None:
    stream = bytearray(transport_stream([(0, KEY + bytes(300)), (1, OTHER + bytes(900))]))
    for place, value in damages:
        stream[place % len(stream)] = value
    with suppress(TransportError):
        access_units(bytes(stream))


def test_a_picture_is_key_only_with_its_parameters() -> None:
    assert AccessUnit(0, KEY).key
    assert not AccessUnit(0, b"\0\0\1\x65").key
    assert not AccessUnit(0, OTHER + KEY).key  # a slice came first


# -- decoding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", range(len(LADDER.rungs)))
def test_decoded_pictures_are_ffmpegs_to_the_bit(segments: Path, rung: int) -> None:
    parts = [read(segments, rung, number) for number in range(SECONDS)]
    decoder = Decoder()
    ours = bytearray()
    for unit in (unit for part in parts for unit in access_units(part)):
        picture = decoder.decode(unit.data)
        assert picture is not None
        assert picture[:2] == (LADDER.rungs[rung].width, LADDER.rungs[rung].height)
        for number in range(3):
            ours += picture.plane(number)
    decoder.close()
    decoder.close()  # does nothing
    assert ours == planes(b"".join(parts))


def test_a_decoder_goes_on_with_another_bitrate(segments: Path) -> None:
    decoder = Decoder()
    sizes = []
    for number, rung in enumerate((2, 0, 1)):
        for unit in access_units(read(segments, rung, number)):
            picture = decoder.decode(unit.data)
            assert picture is not None
        sizes.append((picture.width, picture.height))
    decoder.close()
    assert sizes == [(480, 270), (160, 90), (320, 180)]


def test_before_a_key_picture_there_is_none(segments: Path) -> None:
    units = access_units(read(segments, 0, 0))
    decoder = Decoder()
    assert decoder.decode(units[1].data) is None
    assert decoder.decode(units[0].data) is not None
    with pytest.raises(ExperimentError, match="cannot decode"):
        decoder.decode(units[0].data[: len(units[0].data) // 2] + b"\0" * 64)
    decoder.close()


def test_a_library_that_lacks_is_named_with_its_package() -> None:
    with pytest.raises(FeatureError, match="apt-get install libnone"):
        h264.load("libnone.so.1", "libnone")


# -- drawing -------------------------------------------------------------------------------------


def pixel(memory: bytearray, canvas: Canvas, x: int, y: int) -> tuple[int, int, int]:
    at = y * canvas.stride + x * PIXEL
    blue, green, red = memory[at : at + 3]
    return red, green, blue


def blank(width: int, height: int) -> tuple[bytearray, Canvas]:
    memory = bytearray(width * height * PIXEL)
    return memory, Canvas(memory, width, height)


def test_rectangles_are_cut_at_the_edges() -> None:
    memory, canvas = blank(8, 4)
    canvas.fill(6, 2, 9, 9, colour(1, 2, 3))
    places = [(x, y) for x in range(8) for y in range(4)]
    painted = [place for place in places if pixel(memory, canvas, *place) == (1, 2, 3)]
    assert painted == [(6, 2), (6, 3), (7, 2), (7, 3)]


def test_text_is_what_the_dots_say() -> None:
    memory, canvas = blank(20, 16)
    canvas.text(1, 1, "1T", 1, colour(255, 0, 0), colour(0, 0, 255))
    for y, dots in enumerate(font.rows("1t")):
        row = [pixel(memory, canvas, 1 + x, 1 + y) == (255, 0, 0) for x in range(len(dots))]
        assert row == dots
    large, canvas = blank(20, 16)
    canvas.text(0, 0, "ABCDEF", 2, colour(255, 0, 0), colour(0, 0, 255))  # is cut
    assert pixel(large, canvas, 19, 0) != (0, 0, 0)
    assert pixel(large, canvas, 0, 14) == (0, 0, 0)


def test_the_font_tells_its_characters_apart() -> None:
    signs = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ.:/-+% "
    assert len({str(font.rows(sign)) for sign in signs}) == len(signs)
    assert font.rows("é") == font.rows(" ")


@pytest.fixture(scope="module")
def picture(segments: Path) -> Picture:
    """The test source: columns of colour, red to the left."""
    decoder = Decoder()
    picture = decoder.decode(access_units(read(segments, 2, 0))[0].data)
    assert picture is not None
    return picture  # in the decoder's memory, which is never given back


@pytest.mark.parametrize("size", [(480, 270), (960, 540), (120, 68)])
def test_pictures_are_drawn_in_their_colours(picture: Picture, size: tuple[int, int]) -> None:
    width, height = size
    memory, canvas = blank(width + 10, height + 10)
    canvas.picture(picture, 5, 5, width, height)
    for share, (red, green, blue) in (
        (0.08, (255, 0, 0)), (0.25, (0, 255, 0)), (0.42, (255, 255, 0)),
        (0.58, (0, 0, 255)), (0.75, (255, 0, 255)), (0.92, (0, 255, 255)),
    ):  # fmt: skip
        seen = pixel(memory, canvas, 5 + int(share * width), 5 + int(0.93 * height))
        assert seen == (pytest.approx(red, abs=40), pytest.approx(green, abs=40),
                        pytest.approx(blue, abs=40))  # fmt: skip
    frame = {pixel(memory, canvas, x, y) for x in range(width + 10) for y in (0, 4, height + 5)}
    assert frame == {(0, 0, 0)}


def test_a_picture_does_not_leave_the_canvas(picture: Picture) -> None:
    _memory, canvas = blank(100, 100)
    with pytest.raises(ValueError, match="is not on 100x100"):
        canvas.picture(picture, 50, 0, 51, 10)


class Memory:
    """A screen that is memory, and may be exchanged."""

    def __init__(self, width: int, height: int) -> None:
        self.plug(width, height)
        self.changed = False

    def plug(self, width: int, height: int) -> None:
        self.mode = Mode(width, height)
        self.memory, self.canvas = blank(width, height)
        self.changed = True

    def follow(self) -> bool:
        changed, self.changed = self.changed, False
        return changed


REPORT = {"position_s": 12.3, "buffer_s": 4.0, "state": "playing", "bitrate": 900e3, "stalls": 0,
          "protocol": "mptcp"}  # fmt: skip


@pytest.mark.parametrize("size", [(480, 320), (320, 480), (1280, 800), (200, 120)])
def test_the_view_shows_the_whole_picture_and_how_it_goes(
    picture: Picture, size: tuple[int, int]
) -> None:
    screen = Memory(*size)
    view = View(screen)
    view.show(picture)
    view.tell(REPORT)
    assert view.mode == f"{size[0]}x{size[1]}"
    rows = range(size[1])
    reds = [y for y in rows if pixel(screen.memory, screen.canvas, size[0] // 12, y)[0] > 200]
    assert reds
    strip = {pixel(screen.memory, screen.canvas, x, y) for x in range(size[0]) for y in rows}
    assert (230, 230, 230) in strip  # letters
    assert (60, 200, 90) in strip  # the buffer's bar


def test_the_bar_is_as_long_as_the_buffer_and_red_in_a_stall() -> None:
    def painted(report: dict[str, Any], ink: tuple[int, int, int]) -> int:
        screen = Memory(480, 320)
        View(screen).tell(report)
        return sum(
            pixel(screen.memory, screen.canvas, x, y) == ink for x in range(480) for y in range(320)
        )

    green = (60, 200, 90)
    one, two = (painted({**REPORT, "buffer_s": s}, green) for s in (1.0, 2.0))
    assert two == 2 * one > 0
    assert painted({**REPORT, "state": "stalled"}, green) == 0
    assert painted({**REPORT, "state": "stalled"}, (230, 60, 50)) > 0


def test_the_view_adapts_to_another_screen(picture: Picture) -> None:
    screen = Memory(480, 320)
    view = View(screen)
    view.show(picture)
    screen.plug(800, 480)
    view.follow()
    assert view.mode == "800x480"
    assert pixel(screen.memory, screen.canvas, 60, 200)[0] > 200  # drawn again at once


# -- the guest's display -------------------------------------------------------------------------


def edid(width: int, height: int) -> bytes:
    """The fields of an EDID that say the preferred timing's size."""
    data = bytearray(128)
    data[:8] = b"\0" + b"\xff" * 6 + b"\0"
    data[56], data[58] = width & 255, width >> 8 << 4
    data[59], data[61] = height & 255, height >> 8 << 4
    return bytes(data)


@given(st.integers(1, 4095), st.integers(1, 4095))
def test_the_preferred_mode_is_the_first_timing(width: int, height: int) -> None:
    assert preferred_mode(edid(width, height)) == Mode(width, height)


def test_what_is_no_edid_has_no_mode() -> None:
    assert preferred_mode(bytes(128)) is None
    assert preferred_mode(edid(0, 0)) is None


def device(place: Path, screen: bytes, video_kb: int = 1024) -> Path:
    """Files like those of a PCI device's memory."""
    (place / "vendor").write_text("0x1234\n")
    (place / "device").write_text("0x1111\n")
    (place / "enable").write_text("0")
    (place / "resource0").write_bytes(bytes(video_kb * 1024))
    (place / "resource2").write_bytes(screen.ljust(4096, b"\0"))
    return place


def registers(place: Path) -> list[int]:
    data = (place / "resource2").read_bytes()[0x500:0x520]
    return [int.from_bytes(data[at : at + 2], "little") for at in range(0, 32, 2)]


def test_a_display_takes_the_mode_of_the_screen_that_is_plugged_in(tmp_path: Path) -> None:
    place = device(tmp_path, edid(480, 320))
    display = Display(place)
    assert (place / "enable").read_text() == "1"
    assert display.mode == (480, 320)
    assert registers(place)[1:5] == [480, 320, 32, 0x41]
    display.canvas.fill(0, 0, 1, 1, colour(1, 2, 3))
    assert (place / "resource0").read_bytes()[:4] == colour(1, 2, 3)
    assert not display.follow()
    with (place / "resource2").open("r+b") as controls:
        controls.write(edid(640, 400))
    assert display.follow()
    assert display.mode == (640, 400)
    assert registers(place)[1:5] == [640, 400, 32, 0x41]


def test_a_screen_that_does_not_fit_is_said(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="1280x800 does not fit"):
        Display(device(tmp_path, edid(1280, 800)))


def test_a_display_without_edid_is_said(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="no EDID"):
        Display(device(tmp_path, bytes(128)))
