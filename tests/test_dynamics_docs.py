"""The use case in docs/dynamics.md runs as it stands there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("changes")
    page = (ROOT / "docs/dynamics.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[-1]
    (folder / "changes.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "testbed.cli.main", "run", "changes", "--path", str(folder),
         "--results", str(folder / "results"), "--quick"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = (folder / "results/changes").glob("*/")
    return found


def test_what_was_planned_happened_when_it_was_planned(bundle: Path) -> None:
    events = [json.loads(line) for line in (bundle / "events.jsonl").read_text().splitlines()]
    marks = [event["mark"] for event in events if event.get("mark")]
    assert marks == [
        "wan bw 8", "wan down", "wan up", "wan trace walk1", "wan trace ends",
        "wan bw 20, delay 10ms",
        "partition left middle | right", "healed",
    ]  # fmt: skip
    scheduled = [event for event in events if event["kind"] == "scheduled"]
    assert len(scheduled) == 7
    assert all(0 <= event["began_s"] - event["planned_s"] < 3 for event in scheduled)
    assert scheduled[5]["name"] == "partition({left, middle}, {right})"


def test_the_figure_is_drawn_with_its_marks_and_the_certificate_blames_no_link(
    bundle: Path,
) -> None:
    assert (bundle / "figures/changes.png").stat().st_size > 10_000
    (trial,) = json.loads((bundle / "certificate.json").read_text())["trials"]
    links = trial["links"]
    assert all(link["changed"] for link in links)
    about_changes = ("delivered", "lost", "outside")
    assert not [p for link in links for p in link["problems"] if p.startswith(about_changes)]


def test_a_topology_changes_from_the_command_line(tmp_path: Path) -> None:
    topology = "from mininet.topo import SingleSwitchTopo\ntopos = {'two': SingleSwitchTopo}\n"
    (tmp_path / "two.py").write_text(topology)
    (tmp_path / "later.toml").write_text('[[event]]\nat = "300ms"\nnode = "h1"\ndo = "kill"\n')

    def topo(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "testbed.cli.main", "topo", str(tmp_path / "two.py")]
        return subprocess.run([*command, *options], capture_output=True, text=True, timeout=60)

    done = topo("--at", "100ms link h1 s1 down", "--timeline", str(tmp_path / "later.toml"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["*** h1-s1 down", "*** h1 killed"]
    refused = topo("--at", "1s link h1 s9 down")
    assert refused.returncode == 2
    assert refused.stderr.startswith("testbed: line 1, '1s link h1 s9 down': there is no node 's9'")
