"""The benchmark harness: blocks of a page, ratios, tables, one failure among several."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from benchmarks import _compare
from benchmarks._compare import Ratio, interleaved, table
from testbed.cli import _bench_all, _blocks, bench
from testbed.cli._watch import Use, Watch, machine_line
from testbed.errors import UserError

PAGE = """# Benchmarks

<!-- bench:links -->
old
<!-- end -->

Between.

<!-- bench:network -->
<!-- end -->
"""


def test_blocks_are_found_and_filled() -> None:
    assert _blocks.blocks(PAGE) == {"links": "old", "network": ""}
    page = _blocks.put(_blocks.put(PAGE, "network", "| a |\n"), "links", r"back\slash \1")
    assert _blocks.blocks(page) == {"links": r"back\slash \1", "network": "| a |"}
    assert _blocks.put(page, "links", "old") == _blocks.put(PAGE, "network", "| a |")


def test_a_page_without_the_block_gets_it_at_its_end() -> None:
    page = _blocks.put(PAGE, "soak", "new")
    assert page.startswith(PAGE)
    assert page.endswith("## soak\n\n<!-- bench:soak -->\nnew\n<!-- end -->\n")


def test_the_page_has_a_block_for_each_benchmark() -> None:
    page = Path(__file__).parent.parent / "docs" / "benchmarks.md"
    assert sorted(_blocks.blocks(page.read_text())) == bench.names()


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("<!-- bench:a -->\nx\n", "block 'a' has no end"),
        ("<!-- bench:a -->\n<!-- bench:b -->\n<!-- end -->\n", "block 'a' has no end"),
        ("<!-- bench:a -->\n<!-- end -->\n<!-- bench:a -->\n<!-- end -->\n", "two blocks 'a'"),
    ],
)
def test_a_page_with_broken_marks_is_refused(page: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        _blocks.put(page, "c", "x")


def test_ratios_are_taken_round_by_round() -> None:
    ratio = Ratio.of([10, 40, 90], [10, 20, 30])
    assert ratio == (2, 1, 3)
    assert str(ratio) == "2.00x (1.00 to 3.00)"
    assert str(Ratio.of([1234.5], [10])) == "123x"
    with pytest.raises(ValueError, match="shorter"):
        Ratio.of([1, 2], [1])


def test_every_round_begins_with_another_contender() -> None:
    order: list[str] = []

    def contender(name: str) -> Callable[[], str]:
        return lambda: order.append(name) or f"{name}{len(order)}"  # type: ignore[func-returns-value]

    found = interleaved({name: contender(name) for name in "abc"}, rounds=3)
    assert order == [*"abc", *"bca", *"cab"]
    assert found == {"a": ["a1", "a6", "a8"], "b": ["b2", "b4", "b9"], "c": ["c3", "c5", "c7"]}


def test_tables() -> None:
    lines = table(["what", "ratio"], [["a|b", Ratio(2, 2, 2)], [None, -0.01234], [0.0, 1234.0]])
    assert lines.splitlines() == [
        "| what | ratio |",
        "|---|---|",
        "| a\\|b | 2.00x |",
        "| - | -0.0123 |",
        "| 0 | 1234 |",
    ]
    with pytest.raises(ValueError, match="1 cells under 2 headings"):
        table(["a", "b"], [["x"]])


@pytest.mark.live
def test_dead_namespaces_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace that died before has been removed: its end of a veth pair took the other."""
    from testbed.kernel import NetworkNamespace, RtNetlink
    from testbed.kernel import rtnetlink as rt

    monkeypatch.setattr(_compare, "call", lambda function: function())
    here, doomed = NetworkNamespace.current(), NetworkNamespace.create()
    RtNetlink().request(rt.new_veth(rt.VethEnd("e0", 3, here.fd), rt.VethEnd("e1", 3, doomed.fd)))
    doomed.close()
    _compare.settle(0)  # others may be at work
    assert not {"e0", "near"} & {name for _index, name in socket.if_nameindex()}


def test_what_the_machine_was_is_one_line() -> None:
    line = machine_line(Use(busy=0.5, steal=0.0123, others=0.25))
    assert "\n" not in line
    assert line.endswith("processors 50% busy, 1.2% stolen, 25% used by others")
    use = Watch().end()
    assert use.others >= 0
    assert 0 <= use.steal <= 1


# -- all of them ---------------------------------------------------------------------------------


def fake(name: str, status: int, table: str, words: str = "") -> _bench_all.Outcome:
    return _bench_all.Outcome(
        name=name, command=f"testbed bench {name}", status=status, table=table, last_words=words,
        seconds=1.0, machine="a machine",
    )  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`testbed bench` with three benchmarks that are told what they find."""
    outcomes = {
        "good": fake("good", 0, '["a"]'),
        "lacking": fake("lacking", 2, "", "testbed: no QEMU; apt-get install it"),
        "bad": fake("bad", 1, "half a table", "testbed: it broke"),
    }

    @click.command()
    @click.option("--quick", is_flag=True)
    @click.option("--fetch", is_flag=True)
    def command(**_options: bool) -> None:
        """What it measures."""

    monkeypatch.setattr(bench, "names", lambda: list(outcomes))
    monkeypatch.setattr(bench, "load", lambda name: command if name in outcomes else None)
    asked: dict[str, list[str]] = {}

    def remember(name: str, options: list[str]) -> _bench_all.Outcome:
        asked[name] = options
        return outcomes[name]

    monkeypatch.setattr(_bench_all, "run", remember)

    def invoke(*words: str, options: list[str] | None = None) -> Result:
        result = CliRunner().invoke(bench.bench, list(words), standalone_mode=False)
        if options is not None:
            assert set(map(tuple, asked.values())) == {tuple(options)}
        return result

    return invoke


def test_one_failure_does_not_stop_the_others(run: Callable[..., Result], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- bench:bad -->\nkept\n<!-- end -->\n<!-- bench:good -->\n<!-- end -->\n")
    result = run("all", "--update", str(page), "--quick", "--fetch", options=["--quick", "--fetch"])
    assert result.return_value == 1
    assert "lacking: not measurable here: no QEMU; apt-get install it" in result.stderr
    assert "bad: FAILED: it broke" in result.stderr
    assert "half a table" in result.stdout
    found = _blocks.blocks(page.read_text())
    assert found["bad"] == "kept"
    assert "lacking" not in found
    assert found["good"].startswith("`testbed bench good`, ")
    assert found["good"].endswith(': a machine\n\n["a"]')


def test_a_line_of_progress_is_no_reason() -> None:
    assert fake("x", 1, "", "5 of 6 ...").verdict == "FAILED: status 1"
    assert fake("x", 1, "", "KeyError: 'a'").verdict == "FAILED: KeyError: 'a'"
    assert fake("x", -9, "", "testbed: ended after 1 s").verdict == "FAILED: ended after 1 s"


def test_some_of_them(run: Callable[..., Result]) -> None:
    assert run("all", "--skip", "bad", options=[]).return_value == 0
    found = json.loads(run("all", "--only", "good", "--json").stdout)
    assert found["good"]["found"] == ["a"]
    assert "no benchmark 'x'; choose of good" in str(run("all", "--only", "x").exception)
    assert run("list").stdout == "".join(
        f"{name}  What it measures.\n" for name in ("good   ", "lacking", "bad    ")
    )


@pytest.mark.parametrize(
    ("code", "status", "table", "last"),
    [
        ("print('| a |'); import sys; print('one\\ntwo', file=sys.stderr)", 0, "| a |\n", "two"),
        ("import sys; sys.exit('why')", 1, "", "why"),
    ],
)
def test_a_process_of_its_own(code: str, status: int, table: str, last: str) -> None:
    found = _bench_all._execute([sys.executable, "-c", code], 60.0)
    assert found == (status, table, last)


def test_a_process_that_takes_too_long_is_ended() -> None:
    found = _bench_all._execute([sys.executable, "-c", "import time; time.sleep(60)"], 1.0)
    assert found == (-9, "", "testbed: ended after 1 s")
