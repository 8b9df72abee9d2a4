"""Images without building one: archives, which image is found, what apt is asked, CLI."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from testbed.errors import FeatureError, ParameterError
from testbed.guests import images
from testbed.guests.images import initramfs, packages
from testbed.guests.images.recipes import RECIPES


def test_an_archive_holds_directories_before_what_is_in_them_and_no_times() -> None:
    entries = [
        initramfs.file("lib/a.ko", b"12345"),
        initramfs.link("bin/sh", "busybox"),
        initramfs.character_device("dev/console", 5, 1),
    ]
    data = initramfs.archive(entries)
    assert data == initramfs.archive(reversed(entries))
    found, at = {}, 0
    while at < len(data):
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, name_size = fields[6], fields[11]
        name = data[at + 110 : at + 109 + name_size].decode()
        body = at + (110 + name_size + 3) // 4 * 4
        found[name] = (fields[1], data[body : body + size], tuple(fields[9:11]), fields[5])
        at = body + (size + 3) // 4 * 4
    names = ["bin", "bin/sh", "dev", "dev/console", "lib", "lib/a.ko", "TRAILER!!!"]
    assert list(found) == names
    assert found["lib/a.ko"][1] == b"12345"
    assert found["bin/sh"][:2] == (stat.S_IFLNK | 0o777, b"busybox")
    assert found["dev/console"][2] == (5, 1)
    assert all(time == 0 for _mode, _data, _device, time in found.values())


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(images.shutil, "which", lambda program, path=None: program)
    return tmp_path / "liquidnet"


def put_image(place: Path, name: str, recipe: str) -> Path:
    folder = place / "images" / name
    folder.mkdir(parents=True)
    facts = {"name": "micro", "recipe": recipe, "release": name}
    (folder / "image.json").write_text(json.dumps(facts))
    return folder


def test_an_image_of_an_older_recipe_is_not_used(place: Path) -> None:
    put_image(place, "micro-1", "another recipe")
    assert images.missing() == "the image micro is not built; testbed image build micro"
    with pytest.raises(FeatureError, match=r"not built; testbed image build micro$"):
        images.find()
    old = put_image(place, "micro-2", RECIPES["micro"].hash)
    put_image(place, "micro-3", RECIPES["micro"].hash)
    os.utime(old / "image.json", (1, 1))
    assert images.find().release == "micro-3"


def test_an_unknown_image_is_the_users_mistake(place: Path) -> None:
    with pytest.raises(ParameterError, match="no image is called huge; one of micro"):
        images.build("huge")


def test_without_qemu_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images.shutil, "which", lambda program, path=None: None)
    assert images.missing().endswith("; apt-get install qemu-system-x86")


def test_packages_are_those_that_apt_would_download(monkeypatch: pytest.MonkeyPatch) -> None:
    said = """'http://deb/pool/b.deb' b-tools_1%3a2.0-1_amd64.deb 100 SHA256:bbb
'http://deb/pool/a.deb' a_1.0_all.deb 100 SHA256:aaa
"""
    monkeypatch.setattr(packages, "_apt", lambda *command: said)
    first, second = packages.resolve(["a", "b-tools"])
    assert (first.version, first.digest) == ("a=1.0", "SHA256:aaa")
    assert second.version == "b-tools=1:2.0-1"
    with pytest.raises(FeatureError, match=r"apt serves no c; apt-get update"):
        packages.resolve(["a", "c"])


def test_without_apt_there_is_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FeatureError, match="there is no apt here; build one on a Debian machine"):
        packages._apt("/nonexistent/apt-cache", "depends")
    with pytest.raises(FeatureError, match=r"^false x: no reason given; apt-get update$"):
        packages._apt("false", "x")
