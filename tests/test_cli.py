"""The command line: what is printed where, in words and in JSON, and how mistakes end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from run_lab import CASES, Answer, Told, error, measured, tiny, told

from testbed.cli.main import main
from testbed.errors import TestbedError, UserError
from testbed.run import Trial, runner
from testbed.run.bundle import Bundle, find_bundles

CERTIFIED = "certified: every link did what it was told"


class Said(NamedTuple):
    """What a command left."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Said]


@pytest.fixture
def testbed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Call the command line here; trials of `run` are told, not run."""
    monkeypatch.setattr(runner, "TrialProcess", Told.by(measured))

    def command(*words: object) -> Said:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, *capsys.readouterr())

    return command


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """Two runs, of other parameters."""
    folder = tmp_path_factory.mktemp("bundles")
    return told(folder, repeats=2), told(folder, repeats=2, changes={"wifi.bw": 5})


def is_one_line(said: Said, start: str) -> bool:
    return said.err.startswith(f"testbed: {start}") and said.err.count("\n") == 1


# -- what there is -------------------------------------------------------------------------------


def test_list_names_the_use_cases_of_ours_and_of_yours(testbed: Command) -> None:
    said = testbed("list", "--path", CASES)
    assert (said.status, said.err) == (0, "")
    for name, title in (("tiny", "A tiny use case"), ("trusted_pooling", "")):
        assert any(line.split()[0] == name and title in line for line in said.out.splitlines())
    listed = testbed("list", "--path", CASES, "--json").json
    (own,) = (each for each in listed if each["name"] == "tiny")
    assert own == {"name": "tiny", "section": "D0.0", "title": "A tiny use case",
                   "summary": tiny().summary}  # fmt: skip
    assert "tiny" not in [each["name"] for each in testbed("list", "--json").json]


def test_a_use_case_that_cannot_be_imported_is_said_and_the_others_are_listed(
    testbed: Command, tmp_path: Path
) -> None:
    (tmp_path / "unfinished.py").write_text("import no_such_module\n")
    said = testbed("list", "--json", "--path", tmp_path)
    assert said.status == 0
    assert said.err == (
        "unfinished cannot be imported: ModuleNotFoundError: No module named 'no_such_module'\n"
    )
    assert "trusted_pooling" in [each["name"] for each in said.json]
    said = testbed("show", "unfinished", "--path", tmp_path)
    assert said.status == 2
    assert is_one_line(said, "use case unfinished cannot be imported: ModuleNotFoundError")


def test_show_tells_everything_of_a_use_case(testbed: Command) -> None:
    said = testbed("show", "tiny", "--path", CASES)
    assert (said.status, said.err) == (0, "")
    for words in ("A tiny use case", "lte-only", "everything over LTE", "wifi.bw", "20 Mb/s",
                  "0.1 to 1000 Mb/s", "Nothing leaks (D0.0 1)", "Mean goodput",
                  "5 repeats; with --quick: repeats=2, steps=4"):  # fmt: skip
        assert words in said.out
    facts = testbed("show", "tiny", "--path", CASES, "--json").json
    assert list(facts["variants"]) == ["lte-only", "mptcp", "trusted"]
    assert facts["parameters"][0] == {
        "key": "wifi.bw", "type": "number", "default": 20.0, "unit": "Mb/s",
        "allowed": "0.1 to 1000 Mb/s", "help": "rate",
    }  # fmt: skip
    assert [each["id"] for each in facts["claims"]] == ["leak", "faster", "stall"]
    assert [each["id"] for each in facts["figures"]] == ["goodput", "bars"]


# -- run -----------------------------------------------------------------------------------------


def test_run_tells_verdicts_certificate_and_where_it_all_is(
    testbed: Command, tmp_path: Path
) -> None:
    said = testbed("run", "tiny", "--path", CASES, "--results", tmp_path, "--quick")
    assert said.status == 0
    (path,) = find_bundles(tmp_path)
    for words in ("holds", "Nothing leaks", "0 bytes in 2 trials", "not measurable here",
                  CERTIFIED, f"report   {path}/report.html",
                  f"figures  {path}/figures"):  # fmt: skip
        assert words in said.out
    assert "Traceback" not in said.err
    assert (path / "report.html").exists()
    run = Bundle.open(path).run
    assert (run["quick"], run["repeats"], run["parameters"]["steps"]) == (True, 2, 4)


def test_run_in_json_prints_nothing_else(testbed: Command, tmp_path: Path) -> None:
    facts = testbed(
        "run", "tiny", "--path", CASES, "--results", tmp_path, "--repeat", 1, "--json"
    ).json
    assert (facts["status"], facts["certified"], facts["why_not_certified"]) == (
        "complete",
        True,
        "",
    )
    assert facts["claims"][0] == {
        "id": "leak", "statement": "Nothing leaks", "source": "D0.0 1", "verdict": "holds",
        "measured": "0 bytes in 1 trials",
    }  # fmt: skip
    assert [Path(each).name for each in facts["figures"]] == ["goodput.svg", "bars.svg"]
    assert Path(facts["report"]).exists()
    assert Path(facts["bundle"]).parent == tmp_path / "tiny"


def test_set_goes_before_a_file_and_the_file_before_quick(testbed: Command, tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text('steps = 8\nwifi.bw = "1Gb/s"\n')
    said = testbed(
        "run", "tiny", "--path", CASES, "--results", tmp_path, "--quick", "--repeat", 1, "--json",
        "--config", config, "--set", "wifi.bw=5Mb/s", "--set", "lte.delay=0.02s",
        "--variant", "trusted", "--variant", "lte_only", "--seed", 9,
    )  # fmt: skip
    run = Bundle.open(Path(said.json["bundle"])).run
    found = run["parameters"]
    assert (found["steps"], found["wifi.bw"], found["lte.delay"]) == (8, 5, 20)
    assert [trial["variant"] for trial in run["trials"]] == ["trusted", "lte-only"]
    assert run["seed"] == 9


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["tinny"], "there is no use case 'tinny'; did you mean tiny"),
        (["tiny", "--set", "wifi.bw=fast"], "wifi.bw: 'fast' is not a number; write a number of M"),
        (["tiny", "--set", "wifi.bw=5ms"], "wifi.bw: '5ms' is a time, not a rate"),
        (["tiny", "--set", "wifi.bw=5000"], "wifi.bw = 5000.0 Mb/s is not allowed; it must be 0.1"),
        (["tiny", "--set", "wify.bw=5"], "unknown parameter wify.bw; did you mean wifi.bw"),
        (["tiny", "--set", "wifi.bw"], "--set wifi.bw: no value; write --set NAME=VALUE"),
        (["tiny", "--set", "fault=fire"], "fault = fire is not allowed; it must be one of none, c"),
        (["tiny", "--set", "wifi.bw=999"], "node ap is wired to itself; wire it to another"),
        (["tiny", "--config", "gone.toml"], "gone.toml: No such file or directory; give a TOML fi"),
        (["tiny", "--variant", "wifi"], "tiny has no variant 'wifi'; "),
        (["tiny", "--repeat", "0"], "--repeat 0 is not allowed"),
        (["tiny", "--engine", "magic"], "there is no engine 'magic'"),
        (
            ["tiny", "--observe", "fast"],
            "sampling interval 'fast' is not a number; write a number of s",
        ),
        (["tiny", "--path", "nowhere"], "--path nowhere: no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_status_2_and_nothing_is_begun(
    testbed: Command, words: list[str], complaint: str, tmp_path: Path
) -> None:
    said = testbed("run", *words, "--path", CASES, "--results", tmp_path / "results")
    assert (said.status, said.out) == (2, "")
    assert is_one_line(said, complaint), said.err
    assert not (tmp_path / "results").exists()


def test_a_failed_trial_ends_in_status_1_and_what_there_is_is_published(
    testbed: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(trial: Trial, folder: Path) -> Answer:
        answer = measured(trial, folder)
        return error("it broke", traceback="Traceback: x\n") if trial.repeat else answer

    monkeypatch.setattr(runner, "TrialProcess", Told.by(script))
    said = testbed("run", "tiny", "--path", CASES, "--results", tmp_path, "--repeat", 2, "--json",
                   "--variant", "mptcp")  # fmt: skip
    assert said.status == 1
    assert said.json["status"] == "incomplete: 1 of 2 trials failed: mptcp repeat 2: it broke"
    assert said.err.splitlines()[-1] == (
        f"testbed: 1 of 2 trials failed: mptcp repeat 2: it broke; what there is is in "
        f"{said.json['bundle']}"
    )
    assert "Traceback" not in said.err
    assert Path(said.json["report"]).exists()


def test_a_run_of_failures_only_has_a_report_and_no_figures(
    testbed: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "TrialProcess", Told.by(lambda *_: error("no")))
    said = testbed("run", "tiny", "--path", CASES, "--results", tmp_path, "--repeat", 1,
                   "--variant", "mptcp")  # fmt: skip
    assert said.status == 1
    assert "figure goodput not drawn: no trial came to its end" in said.out
    assert "not certified: no trial came to its end" in said.out
    assert said.err.splitlines()[-1].startswith("testbed: mptcp repeat 1: no; what there is is in")


# -- sweep, reproduce ----------------------------------------------------------------------------


def test_a_sweep_is_a_bundle_a_point_and_a_report_on_all(testbed: Command, tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('wifi.bw = [5, "10Mb/s"]\nsteps = 3\n')
    said = testbed("sweep", "tiny", grid, "--path", CASES, "--results", tmp_path / "r",
                   "--repeat", 1, "--json")  # fmt: skip
    assert said.status == 0
    assert said.err.startswith("point 1/2: wifi.bw=5, steps=3\n")
    runs = [Bundle.open(Path(each["bundle"])).run for each in said.json["bundles"]]
    assert [run["parameters"]["wifi.bw"] for run in runs] == [5, 10]
    assert Path(said.json["report"]).name.startswith("sweep-")
    grid.write_text("wifi.bw = []\n")
    said = testbed("sweep", "tiny", grid, "--path", CASES)
    assert said.status == 2
    assert is_one_line(said, "wifi.bw has an empty list of values; give at least one")


def test_a_sweep_of_one_variant_tries_no_other(testbed: Command, tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text("wifi.bw = [5, 10]\n")
    options = ["--path", CASES, "--results", tmp_path / "r", "--repeat", 1, "--json"]
    said = testbed("sweep", "tiny", grid, "--variant", "mptcp", *options)
    assert said.status == 0
    runs = [Bundle.open(Path(each["bundle"])).run for each in said.json["bundles"]]
    assert [list(run["variants"]) for run in runs] == [["mptcp"]] * 2


def test_reproduce_draws_the_figure_asked_for(testbed: Command, tmp_path: Path) -> None:
    options = ["--path", CASES, "--results", tmp_path, "--repeat", 1]
    said = testbed("reproduce", "tiny/bars", *options)
    assert said.status == 0
    assert [Path(line).name for line in said.out.split()] == ["bars.svg"]
    (facts,) = testbed("reproduce", "tiny", *options, "--json").json
    assert [Path(each).name for each in facts["figures"]] == ["goodput.svg", "bars.svg"]
    said = testbed("reproduce", "tiny/barz", *options)
    assert said.status == 2
    assert is_one_line(said, "there is no figure 'tiny/barz'; did you mean tiny/bars")


# -- report, compare -----------------------------------------------------------------------------


def test_report_judges_and_draws_one_bundle_again(
    testbed: Command, bundles: tuple[Bundle, Bundle]
) -> None:
    path = bundles[0].path
    said = testbed("report", path, "--path", CASES)
    assert (said.status, said.err) == (0, "")
    assert f"report   {path}/report.html" in said.out
    facts = testbed("report", path, "--path", CASES, "--json").json
    assert (facts["complete"], facts["certified"]) == (True, True)
    assert facts["missing_figures"] == {}
    assert {Path(each).parent for each in facts["figures"]} == {path / "figures"}


def test_report_on_a_folder_of_bundles_is_one_page(
    testbed: Command, bundles: tuple[Bundle, Bundle], tmp_path: Path
) -> None:
    folder, target = bundles[0].path.parent, tmp_path / "new" / "all.html"
    facts = testbed("report", folder, "--output", target, "--path", CASES, "--json").json
    assert len(facts["bundles"]) == 2
    assert facts["report"] == str(target)
    assert all(Path(each).parent == tmp_path / "new" / "all-figures" for each in facts["figures"])
    page = target.read_text()
    assert all(bundle.run["id"] in page for bundle in bundles)


@pytest.mark.parametrize("command", ["report", "compare"])
def test_what_is_no_bundle_is_one_line(testbed: Command, command: str, tmp_path: Path) -> None:
    said = testbed(command, tmp_path, *([tmp_path] if command == "compare" else []))
    assert said.status == 2
    assert is_one_line(said, f"{tmp_path} is not a bundle, nor does it hold any; give a folder res")


def test_a_bundle_of_a_use_case_that_is_not_here_is_said(
    testbed: Command, bundles: tuple[Bundle, Bundle]
) -> None:
    said = testbed("report", bundles[0].path)
    assert said.status == 2
    assert is_one_line(said, "there is no use case 'tiny'; ")


def test_compare_shows_what_was_changed_and_what_it_changed(
    testbed: Command, bundles: tuple[Bundle, Bundle]
) -> None:
    paths = [bundle.path for bundle in bundles]
    said = testbed("compare", *paths, "--path", CASES)
    assert (said.status, said.err) == (0, "")
    assert f"wifi.bw: 20.0 in {paths[0].name}, 5.0 in {paths[1].name}" in said.out
    assert "mean goodput (bit/s)" in said.out
    facts = testbed("compare", *paths, "--path", CASES, "--json").json
    assert facts["parameters"] == {"wifi.bw": [20, 5]}
    assert {row["change"] for row in facts["metrics"]} <= {0, None}
    said = testbed("compare", paths[0], paths[0], "--path", CASES)
    assert said.status == 2
    assert "compare needs two different bundles" in said.err


# -- the command itself --------------------------------------------------------------------------


def test_help_lists_every_command_and_each_can_be_asked(testbed: Command) -> None:
    from testbed.cli.main import cli

    said = testbed("--help")
    assert said.status == 0
    for name in cli.list_commands(None):  # type: ignore[arg-type]
        assert f"  {name} " in said.out
        assert testbed(name, "--help").out.startswith(f"Usage: testbed {name} ")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["run"], "Missing argument 'USE-CASE'"),
        (["run", "tiny", "--repeat", "two"], "'two' is not a valid integer"),
        (["list", "--nonsense"], "No such option"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_status_2(
    testbed: Command, words: list[str], complaint: str
) -> None:
    said = testbed(*words)
    assert (said.status, said.out) == (2, "")
    assert complaint in said.err


def test_with_debug_an_error_is_raised(
    testbed: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(UserError, match="no use case 'tinny'"):
        main(["--debug", "show", "tinny", "--path", CASES])
    assert capsys.readouterr().err == ""
    failure = error("it broke", traceback="Traceback: x\n")
    monkeypatch.setattr(runner, "TrialProcess", Told.by(lambda *_: failure))
    with pytest.raises(TestbedError, match="mptcp repeat 1: it broke"):
        main(["run", "tiny", "--path", CASES, "--results", str(tmp_path), "--repeat", "1",
              "--variant", "mptcp", "--debug"])  # fmt: skip
    assert "Traceback: x\n" in capsys.readouterr().err
