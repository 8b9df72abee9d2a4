"""Records on disk: what is there after a trial, after a crash, on a full disk."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import ExperimentError, UserError
from testbed.run import DiskFullError, Recorder, Trial
from testbed.run import bundle as bundle_module
from testbed.run.bundle import Bundle, find_bundles, write_file

TRIAL = Trial(variant="v", repeat=2, seed=7)


@pytest.fixture
def record(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path, TRIAL)


def rows(*files: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    return [row for file in files for row in parquet.read_table(file).to_pylist()]


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_samples_results_and_events_keep_their_order_times_and_units(record: Recorder) -> None:
    record.sample("h1", "rtt", 0.5, "s", time_s=1.0)
    record.samples([(2.0, "h1", "rtt", 1, "s"), (1.5, "h2", "rtt", 2, "s")])
    record.observed([(record.epoch + 3.0, "h3", "rtt", 3.0, "s")])
    record.result("worst", 2, "s", source="h2")
    record.event("started", time_s=0.25, node="h1")
    record.close()
    assert [(r["time_s"], r["source"], r["value"]) for r in rows(record.series_path)] == [
        (1.0, "h1", 0.5), (2.0, "h1", 1.0), (1.5, "h2", 2.0), (3.0, "h3", 3.0), (None, "h2", 2.0),
    ]  # fmt: skip
    assert {(r["variant"], r["repeat"], r["unit"]) for r in rows(record.series_path)} == {
        ("v", 2, "s")
    }
    assert events(record.folder) == [
        {"variant": "v", "repeat": 2, "time_s": 0.25, "kind": "started", "node": "h1"}
    ]


def test_a_sample_without_a_time_is_of_now(record: Recorder) -> None:
    before = record.now()
    record.sample("h1", "rtt", 1, "s")
    after = record.now()
    record.close()
    (row,) = rows(record.series_path)
    assert before <= row["time_s"] <= after


def test_parts_are_whole_files_and_become_one(record: Recorder) -> None:
    for number in range(3):
        record.sample("h1", "rtt", number, "s", time_s=number)
        record.flush()
        record.flush()  # nothing new: no empty part
    parts = sorted(record.series_path.parent.iterdir())
    assert [path.name for path in parts] == [f"v-2.part-0000{n}.parquet" for n in range(3)]
    assert [row["value"] for row in rows(*parts)] == [0, 1, 2]
    record.close()
    assert list(record.series_path.parent.iterdir()) == [record.series_path]
    assert [row["value"] for row in rows(record.series_path)] == [0, 1, 2]


def test_many_rows_do_not_wait_for_the_next_second(
    record: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("testbed.run.recorder._FLUSH_ROWS", 10)
    record.samples((k, "h1", "rtt", k, "s") for k in range(25))
    assert len(list(record.series_path.parent.glob("*.part-*"))) == 1
    record.close()


def test_nothing_recorded_leaves_no_series(record: Recorder) -> None:
    record.close()
    assert not record.series_path.exists()


def test_the_clock_starts_before_the_first_sample_or_not_at_all(record: Recorder) -> None:
    record.observed([(record.epoch, "h1", "up", 1.0, "")])
    record.flush()
    record.observed([(record.epoch + 0.5, "h1", "up", 2.0, "")])
    before = record.epoch
    record.start_clock()
    shift = record.epoch - before
    record.sample("h1", "rtt", 1, "s", time_s=0.0)
    with pytest.raises(ExperimentError, match=r"trial v-2: the clock was started after the first"):
        record.start_clock()
    record.close()
    times = [row["time_s"] for row in rows(record.series_path)]
    assert times == pytest.approx([-shift, 0.5 - shift, 0.0])


def test_progress_is_a_share(tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    record = Recorder(tmp_path, TRIAL, on_progress=lambda *what: told.append(what))
    for share in (-1, 0.5, 7):
        record.progress(share, "sending")
    record.close()
    assert told == [(0.0, "sending"), (0.5, "sending"), (1.0, "sending")]


# -- supervising ---------------------------------------------------------------------------------


def test_a_failure_ends_work_that_waits_and_what_was_deferred_is_done(record: Recorder) -> None:
    done: list[str] = []

    async def clean_up(name: str) -> None:
        done.append(name)

    async def work() -> None:
        for name in ("first", "second"):
            record.defer(lambda name=name: clean_up(name))  # type: ignore[misc]
        record.fail(ExperimentError("the server died"))
        record.fail(ExperimentError("and then the client"))
        await asyncio.sleep(60)

    with pytest.raises(ExperimentError, match="the server died"):
        asyncio.run(record.supervise(work()))
    record.fail(ExperimentError("too late to matter"))
    record.close()
    assert done == ["second", "first"]


def test_the_first_cause_is_raised_and_work_that_ends_leaves_nothing(record: Recorder) -> None:
    async def work() -> None:
        record.fail(ExperimentError("a program died"))
        raise RuntimeError("and so this failed")

    with pytest.raises(ExperimentError, match="a program died"):
        asyncio.run(record.supervise(work()))

    async def well() -> None:
        record.sample("h1", "rtt", 1, "s")

    asyncio.run(record.supervise(well()))
    record.close()


# -- a full disk ---------------------------------------------------------------------------------


def full(*_arguments: object, **_options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_called_that_and_leaves_no_half_of_a_file(
    record: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    record.sample("h1", "rtt", 1, "s")
    record.flush()
    monkeypatch.setattr(parquet, "write_table", full)
    record.sample("h1", "rtt", 2, "s")
    with pytest.raises(DiskFullError, match=r"the disk is full: .*; free space, or use --results"):
        record.flush()
    with pytest.raises(DiskFullError):
        record.close()
    # the part that was whole is still there, and readable
    assert [row["value"] for row in rows(*record.series_path.parent.iterdir())] == [1]


def test_events_on_a_full_disk(record: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(DiskFullError):
            record.event("x")
    record.close()


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "series").write_text("in the way")
    with pytest.raises(ExperimentError, match=r"cannot write .*series: File exists"):
        Recorder(tmp_path, TRIAL)


def test_run_json_is_written_from_what_was_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Bundle.create(tmp_path, "tiny", {"status": "incomplete: x"})
    assert (made.path / ".reserve").stat().st_size >= 100_000
    write = bundle_module.write_file

    def while_full(path: Path, content: str | bytes) -> None:
        if (made.path / ".reserve").exists():
            raise DiskFullError("the disk is full")
        write(path, content)

    monkeypatch.setattr(bundle_module, "write_file", while_full)
    made.run["status"] = "incomplete: the disk is full"
    made.save()
    assert Bundle.open(made.path).why_incomplete == "the disk is full"
    made.release_space()  # is gone already: no error


# -- bundles -------------------------------------------------------------------------------------


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    made = [Bundle.create(tmp_path, "tiny", {"status": "complete"}) for _ in range(3)]
    for each in made:
        each.save()
    assert len({each.path for each in made}) == 3
    assert sorted(find_bundles(tmp_path)) == sorted(each.path for each in made)
    again = Bundle.open(made[1].path)
    assert (again.use_case, again.status, again.why_incomplete) == ("tiny", "complete", "")
    assert again.run["id"] == made[1].path.name


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a bundle: there is no run\.json in it; give a fo"):
        Bundle.open(tmp_path)
    (tmp_path / "run.json").write_text('{"half": ')
    with pytest.raises(UserError, match=r"run\.json cannot be read"):
        Bundle.open(tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match=r"file(/tiny)? is not a folder|cannot make a folder in"):
        Bundle.create(file, "tiny", {})


def test_of_a_trial_that_was_cut_off_its_parts_are_read(tmp_path: Path) -> None:
    made = Bundle.create(tmp_path, "tiny", {"status": "complete"})
    for name in ("a-0.parquet", "a-0.part-00000.parquet", "b-0.part-00000.parquet",
                 "b-0.part-00001.parquet", ".b-0.part-00002.parquet.writing"):  # fmt: skip
        (made.path / "series" / name).touch()
    assert [path.name for path in made.series()] == [
        "a-0.parquet", "b-0.part-00000.parquet", "b-0.part-00001.parquet",
    ]  # fmt: skip


def test_an_event_cut_off_by_a_crash_is_left_out_and_a_broken_one_named(tmp_path: Path) -> None:
    made = Bundle.create(tmp_path, "tiny", {"status": "complete"})
    assert list(made.events()) == []
    (made.path / "events.jsonl").write_text('{"kind": "a"}\n{"kind": "b')
    assert list(made.events()) == [{"kind": "a"}]
    (made.path / "events.jsonl").write_text('{"kind": "a"}\nnonsense\n')
    with pytest.raises(ExperimentError, match=r"events\.jsonl, line 2"):
        list(made.events())


def test_a_certificate_that_is_not_there_certifies_nothing(tmp_path: Path) -> None:
    made = Bundle.create(tmp_path, "tiny", {"status": "complete"})
    assert made.certificate()["certified"] is False
    (made.path / "certificate.json").write_text("{")
    with pytest.raises(UserError, match=r"certificate\.json cannot be read"):
        made.certificate()


def test_a_file_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x.json"
    write_file(target, "old")
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DiskFullError):
        write_file(target, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert target.read_text() == "old"
