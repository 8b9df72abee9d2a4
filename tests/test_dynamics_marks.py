"""Changes of a running network: who is told of them, and how figures show them."""

from __future__ import annotations

from typing import Any

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from testbed.network import Network
from testbed.report import figures
from testbed.report.marks import moments, places


class FakeResults:
    def __init__(self, rows: list[tuple[int, float, str]]) -> None:
        self._rows = rows

    def marks(self, *, variant: str | None = None) -> pandas.DataFrame:
        rows = [(0, "only", repeat, when, mark) for repeat, when, mark in self._rows]
        return pandas.DataFrame(rows, columns=["bundle", "variant", "repeat", "time_s", "mark"])


def draw(results: Any, **options: Any) -> Any:
    canvas = Figure(figsize=(3.4, 2.3))
    axes = canvas.subplots()
    axes.plot([0, 10], [0, 1])
    axes.set_xlim(0, 10)
    figures.marks(axes, results, **options)
    return axes


def test_the_same_change_in_every_repeat_is_one_mark_at_its_mean_time() -> None:
    rows = [(0, 1.0, "down"), (0, 2.0, "up"), (0, 3.0, "down"), (1, 1.2, "down"), (1, 3.4, "down")]
    found = moments(FakeResults(rows), None)  # type: ignore[arg-type]
    assert [(round(mark.time_s, 3), mark.text) for mark in found] == [
        (1.1, "down"),
        (2.0, "up"),
        (3.2, "down"),
    ]


def test_marks_are_lines_with_labels_and_keep_the_axis() -> None:
    axes = draw(FakeResults([(0, 2.0, "wifi down"), (0, 4.0, "wifi up"), (0, 99.0, "too late")]))
    assert [text.get_text() for text in axes.texts] == ["wifi down", "wifi up"]
    assert len(axes.lines) == 3
    assert axes.get_xlim() == (0, 10)
    assert not draw(FakeResults([(0, 2.0, "wifi down")]), labels=False).texts
    assert not draw(FakeResults([])).texts


labels = st.lists(st.tuples(st.floats(0, 240), st.floats(5, 120)), max_size=25)


@settings(deadline=None)
@given(labels)
def test_labels_never_touch_and_stay_within_the_axes(drawn: list[tuple[float, float]]) -> None:
    drawn = sorted(drawn)
    lefts, widths = [left for left, _ in drawn], [width for _, width in drawn]
    boxes = [
        (left, left + width, row)
        for (left, row), width in zip(places(lefts, widths, 240), widths, strict=True)
    ]
    for k, (left, right, row) in enumerate(boxes):
        assert left >= 0
        assert right <= 240 + 1e-9
        for other_left, other_right, other_row in boxes[k + 1 :]:
            assert row != other_row or right <= other_left or other_right <= left


@pytest.mark.live
def test_observers_hear_of_a_change() -> None:
    net = Network()
    for name in ("h1", "h2"):
        net.addHost(name)
    link = net.addLink("h1", "h2", delay="1ms")
    heard: list[tuple[str, dict[str, Any]]] = []
    net.observers.append(lambda kind, **data: heard.append((kind, data)))
    with net:
        link.update(bw=5, params1={"delay": "3ms"})
    assert heard == [
        ("link update", {"mark": "h1-h2 bw 5, delay 3ms", "link": "h1-eth0<->h2-eth0"})
    ]
