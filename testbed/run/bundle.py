"""A bundle: the folder that holds all there is about one run.

    results/<use case>/<run id>/
        run.json            what was tried, on what, how each trial ended, the verdicts
        series/             VARIANT-REPEAT.parquet, or parts of it where a trial was cut off
        events.jsonl        what happened when
        certificate.json    whether the links did what they were told
        figures/ logs/ pcap/

run.json always tells the truth about how far the run got: before each trial it is written with
the status that holds if nobody comes back to change it.  A little space is set aside at the
start, so that also a run that filled its disk can say so.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from testbed.errors import ExperimentError, TestbedError, UserError
from testbed.run.recorder import DiskFullError, disk_error

FORMAT = 1
COMPLETE = "complete"
_RESERVE_BYTES = 128 * 1024
_RESERVE = ".reserve"


class Bundle:
    """A run's folder and the contents of its run.json (`run`), which `save` writes."""

    def __init__(self, path: Path, run: dict[str, Any]) -> None:
        self.path = path
        self.run = run

    @classmethod
    def create(cls, results: Path, use_case: str, run: dict[str, Any]) -> Self:
        """A new folder under `results`; `UserError` or `DiskFullError` where it cannot be."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for name in _candidates(stamp):
            path = results / use_case / name
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if not path.is_dir():
                    raise UserError(
                        f"{results} is not a folder", remedy="give another --results DIR"
                    ) from None
                continue
            except OSError as error:
                raise _cannot_create(results, error) from error
            break
        bundle = cls(path, {"format": FORMAT, "use_case": use_case, "id": path.name, **run})
        for folder in ("series", "figures", "logs", "pcap"):
            (path / folder).mkdir()
        bundle._set_space_aside()
        return bundle

    @classmethod
    def open(cls, path: Path) -> Self:
        """The bundle at `path`; raises `UserError` where there is none."""
        try:
            run = json.loads((path / "run.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"{path} is not a bundle: there is no run.json in it",
                remedy="give a folder results/USE-CASE/RUN",
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path}/run.json cannot be read: {error}") from error
        return cls(path, run)

    @property
    def use_case(self) -> str:
        """Name of the use case."""
        return str(self.run["use_case"])

    @property
    def status(self) -> str:
        """ "complete", or "incomplete: WHY"."""
        return str(self.run["status"])

    @property
    def why_incomplete(self) -> str:
        """Why the run is not complete; "" when it is."""
        return "" if self.status == COMPLETE else self.status.partition(": ")[2]

    @property
    def ended_early(self) -> bool:
        """Was the run stopped (Ctrl-C, full disk) rather than gone through?"""
        return bool(self.run.get("stopped"))

    def events(self) -> Iterator[dict[str, Any]]:
        """What happened, in the order written; a line cut off by a crash is left out."""
        path = self.path / "events.jsonl"
        if not path.exists():
            return
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith("\n"):
                    return
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ExperimentError(f"{path}, line {number}: {error}") from error

    def series(self) -> list[Path]:
        """Files of samples; of a trial that was cut off, its parts."""
        folder = self.path / "series"
        whole = sorted(path for path in folder.glob("*.parquet") if ".part-" not in path.name)
        merged = {path.stem for path in whole}
        parts = (path for path in folder.glob("*.part-*.parquet") if _trial(path) not in merged)
        return whole + sorted(parts)

    def certificate(self) -> dict[str, Any]:
        """certificate.json; raises `UserError` where it cannot be read."""
        path = self.path / "certificate.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {"certified": False, "why": "no trial came to its end", "trials": []}
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        return found

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file of the bundle, whole or not at all."""
        write_file(self.path / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def save(self) -> None:
        """Write run.json; on a full disk, with the space set aside for it."""
        try:
            self.write("run.json", self.run)
        except DiskFullError:
            if not (self.path / _RESERVE).exists():
                raise
            (self.path / _RESERVE).unlink()
            self.write("run.json", self.run)

    def _set_space_aside(self) -> None:
        path = self.path / _RESERVE
        try:
            with open(path, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise disk_error(error, path) from error

    def release_space(self) -> None:
        """Give back what was set aside: nothing large will be written any more."""
        (self.path / _RESERVE).unlink(missing_ok=True)


def find_bundles(path: Path) -> list[Path]:
    """Bundles at or below `path`, oldest first."""
    return sorted(found.parent for found in path.rglob("run.json"))


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file that is there whole or not at all; raises as `Recorder` does."""
    data = content.encode() if isinstance(content, str) else content
    unfinished = path.with_name(f".{path.name}.writing")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise disk_error(error, path) from error


def _trial(part: Path) -> str:
    return part.name.partition(".part-")[0]


def _candidates(stamp: str) -> Iterator[str]:
    yield stamp
    for number in range(2, 10_000):
        yield f"{stamp}-{number}"


def _cannot_create(results: Path, error: OSError) -> TestbedError:
    failure = disk_error(error, results / "run")
    if isinstance(failure, DiskFullError):
        return failure
    return UserError(
        f"cannot make a folder in {results}: {error.strerror}",
        remedy="give a folder you may write to with --results DIR",
    )
