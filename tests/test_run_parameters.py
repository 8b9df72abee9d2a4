"""Parameters as people give them: units, ranges, groups, files, grids; and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import ParameterError, TestbedError
from testbed.run import Parameters, parameter, sweep, units
from testbed.run.parameters import assignments, read_toml


@dataclass(frozen=True, kw_only=True)
class Link(Parameters):
    bw: float = parameter(20.0, unit="Mb/s", help="rate", minimum=0.1, maximum=1000)
    delay: float = parameter(10.0, unit="ms", help="one-way delay", minimum=0)


@dataclass(frozen=True, kw_only=True)
class Every(Parameters):
    wifi: Link = Link()
    lte: Link = Link(bw=10, delay=30)
    repeats_of: int = parameter(3, help="a count", minimum=1)
    share: float = parameter(0.5, help="a ratio", minimum=0, maximum=1)
    size: int = parameter(1000, unit="B")
    loud: bool = parameter(False)
    name: str = parameter("tcp", choices=("tcp", "mptcp"))
    limit: float | None = parameter(None, unit="s")
    sizes: tuple[int, ...] = parameter((1, 2), unit="kB", minimum=1)


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("wifi.bw", "5", 5.0),
        ("wifi.bw", "1Gb/s", 1000.0),
        ("wifi.bw", "500 kbps", 0.5),
        ("wifi.bw", "1MB/s", 8.0),
        ("lte.delay", "0.02s", 20.0),
        ("lte.delay", 7, 7.0),
        ("share", "5%", 0.05),
        ("size", "64KB", 64_000),
        ("size", "1KiB", 1024),
        ("repeats-of", "4", 4),
        ("loud", "yes", True),
        ("loud", False, False),
        ("name", " mptcp ", "mptcp"),
        ("limit", "none", None),
        ("limit", "2min", 120.0),
        ("sizes", "3,4MB", (3, 4000)),
        ("sizes", [5, "6kB"], (5, 6)),
        ("sizes", 7, (7,)),
    ],
)
def test_a_value_is_read_in_the_parameters_own_unit(key: str, given: Any, value: Any) -> None:
    found = Every().changed({key: given}).as_dict()
    expected = {**Every().as_dict(), key.replace("-", "_"): value}
    assert found == expected
    assert type(found[key.replace("-", "_")]) is type(value)


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        (
            "wifi.bw",
            "fast",
            r"wifi\.bw: 'fast' is not a number; write a number of Mb/s, or one wit",
        ),
        ("wifi.bw", "5ms", r"wifi\.bw: '5ms' is a time, not a rate"),
        ("wifi.bw", "5 parsec", "unknown unit 'parsec'"),
        ("wifi.bw", "0", r"wifi\.bw = 0\.0 Mb/s is not allowed; it must be 0\.1 to 1000 Mb/s"),
        ("wifi.bw", "2Gb/s", "must be 0.1 to 1000 Mb/s"),
        ("wifi.bw", "nan", "is not a number"),
        ("wifi.bw", "1e999", "out of range"),
        ("wifi.delay", "-1", "at least 0 ms"),
        ("repeats_of", "2.5", "'2.5' is not a whole number; write a whole number"),
        ("repeats_of", True, "True is not a whole number"),
        ("repeats_of", "0", "at least 1"),
        ("share", "120%", r"share = 1\.2 is not allowed; it must be 0 to 1"),
        ("loud", "perhaps", "'perhaps' is not yes or no; write true or false"),
        ("name", "sctp", "name = sctp is not allowed; it must be one of tcp, mptcp"),
        ("name", 5, "5 is not a text; write text"),
        ("sizes", "3,0", "sizes = 0 kB is not allowed"),
        ("sizes", "3,x", "sizes: 'x' is not a number"),
        ("wifi", "5", r"wifi is a group of parameters; set one of wifi\.bw, wifi\.delay"),
        ("wifi.bandwidth", "5", r"unknown parameter wifi\.bandwidth; did you mean wifi\.bw"),
        ("bw", "5", r"did you mean .*wifi\.bw"),
        ("lte.dealy", "5", r"did you mean lte\.delay"),
    ],
)
def test_what_does_not_fit_is_named_with_its_key_and_a_remedy(
    key: str, given: Any, message: str
) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        Every().changed({key: given})
    assert caught.value.exit_status == 2
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@given(
    st.floats(0.001, 1e6, allow_nan=False),
    st.sampled_from(["s", "ms", "us", "min", "h"]),
    st.sampled_from(["s", "ms", "us", "min", "h"]),
)
def test_there_and_back_in_other_units_is_the_same(number: float, one: str, other: str) -> None:
    there = units.quantity(f"{number!r}{one}", other)
    assert units.quantity(f"{there!r}{other}", one) == pytest.approx(number, rel=1e-9)


def test_declarations_open_groups_and_say_what_is_allowed() -> None:
    found = {each.key: each for each in Every().declarations()}
    assert list(found)[:4] == ["wifi.bw", "wifi.delay", "lte.bw", "lte.delay"]
    assert (found["lte.bw"].default, found["lte.bw"].unit) == (10, "Mb/s")
    said = {key: (each.type_name, each.limits) for key, each in found.items()}
    assert said["wifi.bw"] == ("number", "0.1 to 1000 Mb/s")
    assert said["repeats_of"] == ("whole number", "at least 1")
    assert said["name"] == ("text", "one of tcp, mptcp")
    assert said["limit"] == ("number or none", "")
    assert said["sizes"] == ("list of whole number", "at least 1 kB")


def test_a_default_that_is_not_allowed_and_a_class_that_is_no_dataclass_are_refused() -> None:
    with pytest.raises(ParameterError, match="at least 0 ms"):
        Link(delay=-1)

    class Bare(Parameters):
        pass

    with pytest.raises(TestbedError, match="Bare is not a dataclass; decorate"):
        Bare()


def test_a_change_leaves_the_original_and_survives_its_own_dict() -> None:
    base = Every()
    other = base.changed({"wifi.bw": 5, "lte.delay": 1})
    assert base == Every()
    assert base.changed(other.as_dict()) == other


# -- where they come from ------------------------------------------------------------------------


def test_assignments() -> None:
    assert assignments(["a=1", " b.c = x=y "]) == {"a": "1", "b.c": "x=y"}
    for wrong in ("a", "=1", " =1"):
        with pytest.raises(ParameterError, match=f"--set {wrong}: no value; write --set NAME=VAL"):
            assignments([wrong])


def test_a_file_of_parameters(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('share = 0.25\n[wifi]\nbw = "5Mb/s"\n')
    assert read_toml(file) == {"share": 0.25, "wifi.bw": "5Mb/s"}
    file.write_text("share = \n")
    with pytest.raises(ParameterError, match=r"p\.toml is not TOML: .*line 1"):
        read_toml(file)
    with pytest.raises(ParameterError, match=r"gone\.toml: No such file"):
        read_toml(tmp_path / "gone.toml")


def test_a_grid_is_every_combination() -> None:
    found = sweep.points(Every(), {"wifi.bw": [1, "5Mb/s"], "share": 0.5, "loud": [True, False]})
    assert [tuple(each.values()) for each in found] == [
        (1, 0.5, True), (1, 0.5, False), ("5Mb/s", 0.5, True), ("5Mb/s", 0.5, False),
    ]  # fmt: skip
    # a parameter that is a list is swept by a list of lists
    assert sweep.points(Every(), {"sizes": [1, 2]}) == [{"sizes": [1, 2]}]
    assert sweep.points(Every(), {"sizes": [[1], [2, 3]]}) == [{"sizes": [1]}, {"sizes": [2, 3]}]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"wifi.bw": [5, "slow"]}, "'slow' is not a number"),
        ({"wifi.bw": []}, r"wifi\.bw has an empty list of values"),
        ({"nothing": [1]}, "nothing"),
        ({"share": [n / 40 for n in range(40)], "repeats_of": list(range(1, 41))},
         "the grid has 1600 points; take values away: at most 1000"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_is_refused(grid: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        sweep.points(Every(), grid)
