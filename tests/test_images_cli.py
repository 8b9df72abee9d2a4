"""`testbed image`: what is printed in words and in JSON, and how mistakes end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from testbed.cli.main import main
from testbed.guests.images import building, packages, rootfs, store
from testbed.guests.images.packages import Package
from testbed.guests.images.recipes import RECIPES

PACKAGES = [
    Package("linux-image_6.1_amd64", "SHA256:1"),
    Package("busybox_1%3a2_amd64", "SHA256:2"),
]


class Said(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """The command line on an empty cache, with apt and the assembly of images as told here."""

    def __init__(self, capsys: pytest.CaptureFixture[str], cache: Path) -> None:
        self.images = cache / "liquidnet" / "images"
        self._capsys = capsys

    def __call__(self, *words: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            main(["image", *words])
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, *self._capsys.readouterr())


@pytest.fixture
def testbed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> CommandLine:
    def write(folder: Path, *_parts: object) -> str:
        for name in ("kernel", "initrd"):
            (folder / name).write_bytes(bytes(4096))
        return "6.1.0-9-amd64"

    def kernel(flavour: str, version: str = "") -> str:
        return f"linux-image-{version or '6.1'}-{flavour}"

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(building.assembly, "write", write)
    monkeypatch.setattr(rootfs, "write", lambda folder, *_parts: (folder / "disk").touch())
    monkeypatch.setattr(building.shutil, "which", lambda program, path: program)
    monkeypatch.setattr(packages, "kernel", kernel)
    monkeypatch.setattr(
        packages, "resolve", lambda names: [Package(f"{names[0]}_1_amd64", ""), *PACKAGES]
    )
    monkeypatch.setattr(packages, "closure", lambda names: [Package("sudo_1.9_amd64", "")])
    monkeypatch.setattr(packages, "unpacked", lambda package: tmp_path / package.file)
    return CommandLine(capsys, tmp_path)


def test_a_fresh_machine_has_no_images_and_is_told_how_to_get_them(testbed: CommandLine) -> None:
    listed = testbed("list", "--json").json
    assert [each["name"] for each in listed] == list(RECIPES)
    assert not any(each["built"] for each in listed)
    assert [each["build"] for each in listed] == [f"testbed image build {name}" for name in RECIPES]
    assert testbed("list").out.count("not built") == len(RECIPES)


def test_what_is_built_is_shown(testbed: CommandLine) -> None:
    built = testbed("build", "micro", "--json")
    assert built.status == 0
    assert "image micro: fetching packages\nimage micro: putting it together\n" in built.err
    shown = testbed("show", "micro", "--json").json
    assert shown["built"]
    assert shown["packages"]["busybox"] == "1:2"
    assert shown["bytes"] >= 2 * 4096
    assert Path(shown["folder"]) == testbed.images / f"micro-{shown['hash']}"
    assert built.json.items() >= {key: shown[key] for key in ("hash", "kernel", "bytes")}.items()
    assert "busybox 1:2" in testbed("show", "micro").out
    assert "6.1.0-9-amd64" in testbed("list").out


def test_a_built_image_is_not_built_again(testbed: CommandLine) -> None:
    first = testbed("build", "function", "--json").json
    again = testbed("build", "function", "--json")
    assert again.json["hash"] == first["hash"]
    assert "putting it together" not in again.err


def test_of_an_image_that_is_not_built_its_packages_are_shown(testbed: CommandLine) -> None:
    shown = testbed("show", "full", "--json").json
    assert not shown["built"]
    assert shown["packages"].keys() >= {"busybox", "sudo"}
    assert testbed("build", "full").status == 0
    assert testbed("show", "full", "--json").json["built"]


def test_images_with_other_kernels_are_beside_each_other(testbed: CommandLine) -> None:
    testbed("build", "micro", "--kernel", "6.12")
    assert not testbed("show", "micro", "--json").json["built"]
    other = testbed("show", "micro", "--kernel", "6.12", "--json").json
    assert other["built"]
    assert "linux-image-6.12-cloud-amd64" in other["packages"]
    assert other["build"] == "testbed image build micro --kernel 6.12"
    testbed("build", "micro")
    assert testbed("show", "micro", "--json").json["hash"] != other["hash"]
    assert testbed("clean").out == "0 folders removed, 0 MB\n"


def test_old_images_are_removed_when_asked(
    testbed: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    testbed("build", "micro")
    monkeypatch.setattr(packages, "resolve", lambda names: PACKAGES)  # newer ones
    testbed("build", "micro")
    (testbed.images / "micro-ancient").mkdir()
    (testbed.images / "micro-ancient" / "image.json").write_text('{"name": "micro"}')
    for name, age in (("abandoned", 7200), ("being-filled", 0)):
        (testbed.images / name).mkdir()
        os.utime(testbed.images / name, (0, store.time.time() - age))
    kept = testbed("show", "micro", "--json").json["folder"]
    told = testbed("clean", "--dry-run").out.splitlines()
    assert len(told) == 3
    assert Path(kept).is_dir()
    assert testbed("clean").out.splitlines()[:3] == told
    assert sorted(path.name for path in testbed.images.iterdir()) == [
        "being-filled",
        Path(kept).name,
    ]


def test_mistakes_are_one_line(testbed: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building.shutil, "which", lambda program, path: None)
    for words, message in (
        (("build", "huge"), "no image is called huge; one of function, micro, full, xen"),
        (("show", "huge"), "no image is called huge; one of function, micro, full, xen"),
        (("build", "micro"), "image micro: depmod is not installed; apt-get install kmod"),
    ):
        said = testbed(*words)
        assert (said.status, said.err) == (2, f"testbed: {message}\n")
