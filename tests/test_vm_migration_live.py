"""A machine with its video moves between two devices, for real, the shortest way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import parquet

from testbed.run import Recorder, Trial
from testbed.run.trial import Conductor
from usecases.vm_migration import VmMigration
from usecases.vm_migration.journey import LOAD, MIGRATE_MPTCP

_SHORT = {
    "scenario": "cpu", "tasks": 1, "before": 1, "after": 1.5,
    "machine.memory": 120, "machine.downtime": 2, "peer.bw": 400, "wifi.bw": 8,
}  # fmt: skip


@pytest.mark.live
def test_the_video_goes_on_over_the_same_connection_on_the_other_device(tmp_path: Path) -> None:
    record = Recorder(tmp_path, Trial(variant=MIGRATE_MPTCP, repeat=0, seed=7))
    params = VmMigration.Parameters().changed(_SHORT)
    try:
        Conductor(VmMigration(), params, record, lambda **_message: None).conduct()
    finally:
        record.close()
    rows = parquet.read_table(record.series_path).to_pylist()
    told = {(r["metric"], r["source"]): r["value"] for r in rows if r["time_s"] is None}
    results = {metric: value for (metric, source), value in told.items() if source == LOAD.name}
    assert results["survived"] == results["playing"] == 1
    assert results["missed"] == results["backwards"] == 0
    assert 0 < results["downtime"] < results["total"]
    assert told["subflow", f"{LOAD.name}.phone"] > 0
    assert told["subflow", f"{LOAD.name}.tablet"] > 0
    assert told["carried", f"{LOAD.name}.peer"] > results["payload"] > 0
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    before, after = (event for event in events if event["kind"] == "display")
    assert before["mode"] == before["offered"] != after["mode"] == after["offered"]
    assert (tmp_path / after["picture"]).read_bytes().startswith(b"\x89PNG")
