"""Runs: order and seeds, what ends one early, and that what was recorded is kept and said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from run_lab import CASES, Answer, done, error, measured, tiny, told

from testbed.errors import (
    ExperimentError,
    FeatureError,
    ParameterError,
    TestbedError,
    TopologyError,
    UserError,
)
from testbed.kernel.namespaces import mount
from testbed.run import DiskFullError, Recorder, Trial, runner
from testbed.run.bundle import Bundle, find_bundles
from testbed.run.trial import Conductor, describe
from testbed.run.trial_process import Observer

# -- what is to be run ---------------------------------------------------------------------------


def test_variants_are_interleaved_and_repeats_of_one_number_share_a_seed(tmp_path: Path) -> None:
    trials = runner.plan(tiny(), repeats=2, seed=5, engine="fabric", results=tmp_path).trials()
    assert [trial.label for trial in trials] == [
        "lte-only-0", "mptcp-0", "trusted-0", "lte-only-1", "mptcp-1", "trusted-1",
    ]  # fmt: skip
    seeds = {repeat: {t.seed for t in trials if t.repeat == repeat} for repeat in (0, 1)}
    assert all(len(found) == 1 for found in seeds.values())
    assert seeds[0] != seeds[1]
    assert {trial.engine for trial in trials} == {"fabric"}
    again, other = (
        runner.plan(tiny(), repeats=2, seed=seed, results=tmp_path).trials() for seed in (5, 6)
    )
    assert [t.seed for t in again] == [t.seed for t in trials]
    assert {t.seed for t in other}.isdisjoint(t.seed for t in trials)


def test_what_is_asked_for_goes_before_quick_and_quick_before_the_defaults(tmp_path: Path) -> None:
    usual, quick, asked = (
        runner.plan(tiny(), results=tmp_path, **options)
        for options in (
            {},
            {"quick": True},
            {"quick": True, "changes": {"steps": 9}, "repeats": 7, "variants": ["trusted"]},
        )
    )
    assert (usual.params.steps, usual.repeats, len(usual.trials())) == (6, 5, 15)
    assert (quick.params.steps, quick.repeats) == (4, 2)
    assert (asked.params.steps, asked.repeats, asked.variants) == (9, 7, ("trusted",))


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"variants": ["mptpc"]}, ParameterError, "tiny has no variant 'mptpc'; did you mean mptc"),
        ({"repeats": 0}, ParameterError, "--repeat 0 is not allowed; repeat at least once"),
        ({"engine": "magic"}, ParameterError, "there is no engine 'magic'"),
        ({"changes": {"steps": "0"}}, ParameterError, "steps = 0 is not allowed"),
        ({"changes": {"wifi.bw": 999}}, TopologyError, "wired to itself; wire it to another"),
        ({"results": Path("/run/results")}, UserError, "give another --results DIR"),
    ],
)
def test_mistakes_are_found_before_anything_is_started_or_written(
    options: dict[str, Any], kind: type[TestbedError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message) as caught:
        runner.plan(tiny(), **{"results": tmp_path, **options})
    assert caught.value.exit_status == 2
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_the_kernel_has_not_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner.kernel_engine, "missing", lambda **_: "this kernel has no netem")
    with pytest.raises(FeatureError, match="no netem; use a kernel that has it, or --engine fab"):
        runner.plan(tiny(), engine="netem", results=tmp_path)


# -- how a run goes, with trials that are told ---------------------------------------------------


class Watch(Observer):
    """Notes what an observer is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def trial_started(self, trial: Trial, number: int, total: int) -> None:
        self.told.append(f"{trial.label} {number}/{total}")

    def trial_ended(self, trial: Trial, error: str) -> None:
        self.told.append(error or "ended")


def statuses(bundle: Bundle) -> list[str]:
    return [each["status"] for each in Bundle.open(bundle.path).run["trials"]]


def test_a_complete_run_says_so_and_what_it_was_of(tmp_path: Path) -> None:
    watch = Watch()
    bundle = told(tmp_path, observer=watch, repeats=2, variants=["lte-only", "mptcp"], seed=3)
    run = Bundle.open(bundle.path).run
    assert (run["status"], run["use_case"], run["seed"]) == ("complete", "tiny", 3)
    assert run["variants"] == {name: tiny().variants[name] for name in ("lte-only", "mptcp")}
    assert (run["parameters"]["wifi.bw"], run["units"]["wifi.bw"]) == (20, "Mb/s")
    assert run["machine"]["cpus"] >= 1
    assert "liquidnet" in run["packages"]
    assert [(t["variant"], t["repeat"], t["seconds"]) for t in run["trials"]] == [
        ("lte-only", 0, 1.5), ("mptcp", 0, 1.5), ("lte-only", 1, 1.5), ("mptcp", 1, 1.5),
    ]  # fmt: skip
    assert watch.told == ["lte-only-0 0/4", "ended", "mptcp-0 1/4", "ended",
                          "lte-only-1 2/4", "ended", "mptcp-1 3/4", "ended"]  # fmt: skip
    assert bundle.certificate()["certified"]
    assert runner.status_error(bundle) is None
    assert not bundle.ended_early


def test_one_failure_among_others_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    def script(trial: Trial, folder: Path) -> Answer:
        if trial.label == "mptcp-0":
            return error("the server died", remedy="see its log", traceback="Traceback ...")
        return measured(trial, folder)

    watch = Watch()
    bundle = told(tmp_path, script, watch, repeats=2)
    line = "mptcp repeat 1: the server died; see its log"
    assert bundle.status == f"incomplete: 1 of 6 trials failed: {line}"
    assert statuses(bundle) == ["complete", "failed", *["complete"] * 4]
    assert bundle.run["trials"][1]["error"] == "the server died"
    assert bundle.run["trials"][1]["traceback"] == "Traceback ..."
    assert line in watch.told
    assert len(bundle.series()) == 5
    assert len(bundle.certificate()["trials"]) == 5
    assert not bundle.ended_early
    failure = runner.status_error(bundle)
    assert failure is not None
    assert failure.exit_status == 1
    assert str(bundle.path) in str(failure)


def test_the_only_trial_s_failure_is_the_run_s(tmp_path: Path) -> None:
    bundle = told(tmp_path, lambda *_: error("no"), repeats=1, variants=["mptcp"])
    assert bundle.status == "incomplete: mptcp repeat 1: no"
    assert bundle.certificate()["why"] == "no trial came to its end"


def test_a_row_of_failures_ends_the_run_and_a_success_breaks_the_row(tmp_path: Path) -> None:
    bundle = told(tmp_path / "row", lambda *_: error("no"), repeats=2)
    assert bundle.status.startswith("incomplete: 3 trials in a row failed, the last one: trusted ")
    assert statuses(bundle) == ["failed"] * 3
    assert bundle.ended_early

    def some(trial: Trial, folder: Path) -> Answer:
        return measured(trial, folder) if trial.variant == "trusted" else error("no")

    broken = told(tmp_path / "some", some, repeats=2)
    assert statuses(broken) == ["failed", "failed", "complete"] * 2
    assert broken.status.startswith("incomplete: 4 of 6 trials failed")


@pytest.mark.parametrize(
    "answer",
    [
        error("no nft here", exit_status=2),
        error("the disk is full: x", type="DiskFullError", remedy="free space"),
    ],
)
def test_what_no_other_trial_would_pass_either_ends_the_run(answer: Answer, tmp_path: Path) -> None:
    bundle = told(tmp_path, lambda *_: answer, repeats=3)
    assert statuses(bundle) == ["failed"]
    assert bundle.ended_early
    assert bundle.why_incomplete.startswith(f"lte-only repeat 1: {answer['message']}")


def test_a_disk_that_fills_while_the_runner_writes_ends_the_run(tmp_path: Path) -> None:
    def script(trial: Trial, folder: Path) -> Answer:
        if trial.variant == "mptcp":
            raise DiskFullError("the disk is full: x", remedy="free space")
        return measured(trial, folder)

    bundle = told(tmp_path, script, repeats=2)
    assert bundle.status == (
        "incomplete: the disk is full: x; free space (during mptcp repeat 1 (2 of 6 trials))"
    )
    assert bundle.ended_early


@pytest.mark.parametrize(
    ("interrupt", "why"), [("", "interrupted by Ctrl-C"), ("ended by SIGTERM", "ended by SIGTERM")]
)
def test_an_interrupted_run_says_where(interrupt: str, why: str, tmp_path: Path) -> None:
    def script(trial: Trial, folder: Path) -> Answer:
        if trial.label == "lte-only-1":
            raise KeyboardInterrupt(interrupt)
        return measured(trial, folder)

    bundle = told(tmp_path, script, repeats=2)
    assert bundle.status == f"incomplete: {why} during lte-only repeat 2 (4 of 6 trials)"
    assert statuses(bundle) == ["complete"] * 3 + ["interrupted"]
    assert bundle.ended_early


def test_a_run_that_is_killed_has_told_the_truth_before(tmp_path: Path) -> None:
    """What run.json says while a trial runs is what holds if nobody comes back to change it."""
    said: list[str] = []

    def script(trial: Trial, folder: Path) -> Answer:
        said.append(Bundle.open(folder).status)
        return done()

    told(tmp_path, script, repeats=1)
    assert said[1] == "incomplete: cut off during mptcp repeat 1 (2 of 3 trials)"


def test_sigterm_ends_a_run_as_ctrl_c_does(tmp_path: Path) -> None:
    def script(trial: Trial, folder: Path) -> Answer:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        return done()

    before = signal.getsignal(signal.SIGTERM)
    bundle = told(tmp_path, script, repeats=1)
    assert bundle.why_incomplete == "ended by SIGTERM during lte-only repeat 1 (1 of 3 trials)"
    assert signal.getsignal(signal.SIGTERM) is before


def test_one_uncertified_trial_makes_the_run_uncertified(tmp_path: Path) -> None:
    def script(trial: Trial, folder: Path) -> Answer:
        late = trial.label == "mptcp-1"
        return done(certified=not late, why="packets left late" if late else "")

    certificate = told(tmp_path, script, repeats=2).certificate()
    assert not certificate["certified"]
    assert certificate["why"] == "mptcp repeat 2: packets left late [1 of 6 trials]"


# -- trials that are processes -------------------------------------------------------------------


def executed(results: Path, *, limit_s: float = 60, **changes: Any) -> Bundle:
    """One trial of `tiny`, the real way."""
    case = tiny()
    case.trial_limit_s = limit_s  # type: ignore[misc]
    planned = runner.plan(
        case, changes={"steps": 4, "pause": 0.01, **changes}, variants=["lte-only"], repeats=1,
        results=results, folders=(CASES,),
    )  # fmt: skip
    return runner.execute(planned)


def recorded(bundle: Bundle) -> list[float]:
    """The goodput samples of a bundle, whatever became of its trial."""
    from pyarrow import parquet

    tables = [parquet.read_table(path).to_pylist() for path in bundle.series()]
    return [row["value"] for rows in tables for row in rows if row["metric"] == "goodput"]


def test_a_trial_s_records_are_fixed_by_its_seed(tmp_path: Path) -> None:
    one, same = executed(tmp_path), executed(tmp_path)
    assert one.status == same.status == "complete"
    assert one.path != same.path
    assert len(recorded(one)) == 4
    assert recorded(one) == recorded(same)
    assert [event["kind"] for event in one.events()] == ["halfway"]
    assert [trial["variant"] for trial in one.certificate()["trials"]] == ["lte-only"]
    assert one.run["trials"][0]["seconds"] > 0


def test_what_went_wrong_in_a_trial_is_in_run_json(tmp_path: Path) -> None:
    bundle = executed(tmp_path, fault="crash")
    why = "in node h1 died with exit status 1: no route to host; see lte-only-0-sender.log in the"
    assert bundle.status.startswith("incomplete: lte-only repeat 1: sender (python")
    assert why in bundle.status
    assert "Traceback" in bundle.run["trials"][0]["traceback"]
    assert "Traceback" in (bundle.path / "logs" / "lte-only-0-trial.log").read_text()
    assert (bundle.path / "logs" / "lte-only-0-sender.log").read_text() == "no route to host\n"


@pytest.mark.live
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("crash", "in node h1 died with exit status 1: no route to host"),
        ("quiet", "in node h1 ended without saying that it is done"),
        ("die", "in node h1 was killed by SIGKILL"),
        ("bug", "KeyError: 'server' (tiny.py, line "),
        ("missing", "h2 (program) in node h2: cannot start: No such file or directory"),
        ("garbage", "wrote b'hello\\n', which is not a line of the protocol"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(fault: str, why: str, tmp_path: Path) -> None:
    params = tiny().Parameters().changed({"steps": 4, "pause": 0.01, "fault": fault})
    record = Recorder(tmp_path, Trial(variant="lte-only", repeat=0, seed=1))
    with pytest.raises((ExperimentError, KeyError)) as caught:
        Conductor(tiny(), params, record, lambda **_message: None).conduct()
    record.close()
    message = describe(caught.value)["message"]
    assert why in message
    assert "\n" not in message


def test_a_trial_that_is_killed_leaves_what_it_had_written(tmp_path: Path) -> None:
    bundle = executed(tmp_path, fault="kill-trial")
    assert "its process was killed by SIGKILL" in bundle.status
    assert all(".part-" in path.name for path in bundle.series())
    assert recorded(bundle)


def test_a_trial_that_hangs_is_ended_at_its_limit(tmp_path: Path) -> None:
    bundle = executed(tmp_path, fault="hang", limit_s=1)
    assert bundle.why_incomplete.endswith("it took longer than its limit of 1 s")


def wait_for(process: subprocess.Popen[str], results: Path) -> Path:
    """The bundle of a run whose trial has recorded its event."""
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        for bundle in find_bundles(results):
            if (bundle / "events.jsonl").exists() and (bundle / "events.jsonl").read_text():
                return bundle
        time.sleep(0.05)


def test_ctrl_c_keeps_what_was_recorded_and_ends_with_status_1(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "testbed.cli.main", "run", "tiny", "--path", CASES, "--json",
         "--results", str(tmp_path), "--set", "fault=hang", "--variant", "mptcp"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    path = wait_for(process, tmp_path)
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 1, complained
    assert json.loads(said)["status"].startswith("incomplete: interrupted by Ctrl-C during mptcp ")
    assert complained.splitlines()[-1].startswith("testbed: interrupted by Ctrl-C during mptcp rep")
    bundle = Bundle.open(path)
    assert bundle.run["trials"][0]["status"] == "interrupted"
    assert [each.name for each in bundle.series()] == ["mptcp-0.parquet"]
    assert recorded(bundle)
    assert not (path / ".reserve").exists()


@pytest.mark.live
def test_a_full_disk_is_said_in_a_run_json_that_is_whole(tmp_path: Path) -> None:
    mount("tmpfs", str(tmp_path), "tmpfs", data="size=700k")
    bundle = executed(tmp_path, fault="fill-disk", steps=1)
    again = Bundle.open(bundle.path)
    assert again.why_incomplete.startswith("lte-only repeat 1: the disk is full: ")
    assert "free space, or use --results DIR elsewhere" in again.status
    assert again.ended_early
    from pyarrow import parquet

    assert [parquet.read_table(path).num_rows > 0 for path in again.series()]
