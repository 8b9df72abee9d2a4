"""Images without building one: archives, which image is found, what apt is asked, CLI."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.errors import FeatureError, ParameterError
from testbed.guests import images
from testbed.guests.images import compile_modules, initramfs, packages, recipes, rootfs
from testbed.guests.images.kernel import bootable
from testbed.guests.images.recipes import RECIPES, DiskRecipe, recipe


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
    facts = {"name": "micro", "recipe": recipe, "release": name, "least_mb": 120}
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
    with pytest.raises(ParameterError, match="no image is called huge; one of function, micro"):
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
    assert (first.name, first.version, first.digest) == ("a", "1.0", "SHA256:aaa")
    assert (second.name, second.version) == ("b-tools", "1:2.0-1")
    with pytest.raises(FeatureError, match=r"apt serves no c; apt-get update"):
        packages.resolve(["a", "c"])


def test_without_apt_there_is_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FeatureError, match="there is no apt here; build one on a Debian machine"):
        packages._apt("/nonexistent/apt-cache", "depends")
    with pytest.raises(FeatureError, match=r"^false x: no reason given; apt-get update$"):
        packages._apt("false", "x")


def test_a_kernel_is_the_preferred_one_or_the_newest_of_a_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = """linux-image-6.12.9+deb12-cloud-amd64
linux-image-6.12.117+deb12-cloud-amd64
linux-image-6.12.117+deb12-amd64
linux-image-6.12.118+deb12-cloud-amd64-dbg
linux-image-6.1.0-56-cloud-amd64
"""

    def apt(_program: str, what: str, _name: str) -> str:
        return served if what == "pkgnames" else "  Depends: linux-image-6.1.0-56-cloud-amd64\n"

    monkeypatch.setattr(packages, "_apt", apt)
    assert packages.kernel("cloud-amd64") == "linux-image-6.1.0-56-cloud-amd64"
    assert packages.kernel("cloud-amd64", "6.12") == "linux-image-6.12.117+deb12-cloud-amd64"
    assert packages.kernel("amd64", "6.12") == "linux-image-6.12.117+deb12-amd64"
    assert packages.kernel("cloud-amd64", "6.1") == "linux-image-6.1.0-56-cloud-amd64"
    with pytest.raises(FeatureError, match=r"apt knows no kernel 6\.13 amd64; apt-get update"):
        packages.kernel("amd64", "6.13")


@pytest.mark.parametrize("packed", [lzma.compress, lambda data: b"another way" + data])
def test_a_kernel_is_unpacked_where_that_saves_a_guest_time(packed: Callable[..., bytes]) -> None:
    payload = packed(b"\x7fELF kernel")
    head = bytearray(4 * 512)
    head[0x1F1] = 2  # sectors besides the first
    head[0x248:0x250] = struct.pack("<II", 512, len(payload))
    image = bytes(head) + payload + b"the rest"
    assert bootable(image) == (b"\x7fELF kernel" if packed is lzma.compress else image)


HERE = """'Unread.'
import there
try:
    import ssl
except ImportError:
    ssl = None
seen = __doc__, ssl
"""


def compiled(place: Path, folder: Path, *modules: str) -> dict[str, bytes]:
    """What compile_modules.py writes of modules in `place`."""
    command = [sys.executable, "-BsS", compile_modules.__file__, str(folder), *modules]
    environment = {"PYTHONPATH": str(place), "PYTHONHASHSEED": "0"}
    subprocess.run(command, check=True, env=environment)
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_pythons_modules_come_with_what_they_import(tmp_path: Path) -> None:
    place = tmp_path / "library"
    (place / "here").mkdir(parents=True)
    (place / "here" / "__init__.py").write_text(HERE)
    (place / "here" / "within.py").touch()
    (place / "there.py").write_text("kinds = {'a', 'b', 'c'} | {1, 2}")
    (place / "unused.py").touch()
    made = compiled(place, tmp_path / "made", "here")
    assert {"here/__init__.pyc", "there.pyc", "os.pyc"} <= made.keys()
    assert not {"here/within.pyc", "unused.pyc"} & made.keys()
    assert compiled(place, tmp_path / "again", "here") == made
    command = [sys.executable, "-c", "import here; print(here.seen, here.__file__)"]
    environment = {"PYTHONPATH": str(tmp_path / "made")}
    said = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert said.stdout == f"(None, None) {tmp_path}/made/here/__init__.pyc\n"


# -- a system on a disk --------------------------------------------------------------------------


def test_sources_are_debians_only(monkeypatch: pytest.MonkeyPatch) -> None:
    said = """Debian deb http://deb.debian.org/debian/ bookworm main
Debian deb http://deb.debian.org/debian/ bookworm main
. nodistro deb https://deb.nodesource.com/node_20.x/ nodistro main
Debian deb http://deb.debian.org/debian-security/ bookworm-security main
"""
    monkeypatch.setattr(packages, "_apt", lambda *command: said)
    assert packages.sources() == (
        "deb http://deb.debian.org/debian/ bookworm main\n"
        "deb http://deb.debian.org/debian-security/ bookworm-security main\n"
    )
    monkeypatch.setattr(packages, "_apt", lambda *command: "")
    with pytest.raises(FeatureError, match="no lists of Debian's packages; apt-get update"):
        packages.sources()


def test_the_disk_has_what_the_project_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    full = recipe("full")
    assert isinstance(full, DiskRecipe)
    assert {"iproute2", "openvswitch-switch", "openssh-server"} <= set(full.installed)
    before = full.hash
    monkeypatch.setattr(recipes, "_packages_of_the_project", lambda: ("another",))
    assert full.hash != before
    monkeypatch.undo()
    monkeypatch.setattr(recipes, "_SETUP", Path("/nonexistent/setup.sh"))
    with pytest.raises(FeatureError, match=r"setup.sh does not say .*; build it from a checkout"):
        full.installed  # noqa: B018


def test_checkouts_in_different_places_share_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = recipe("full").hash
    shutil.copytree(recipes.FULL, tmp_path / "full")
    monkeypatch.setattr(recipes, "FULL", tmp_path / "full")
    assert recipe("full").hash == here
    next(path for path in (tmp_path / "full").rglob("*") if path.is_file()).write_text("other")
    assert recipe("full").hash != here


def test_files_are_added_to_the_root_without_times_and_owners(tmp_path: Path) -> None:
    for name in ("kernel/fs/ext4.ko", "kernel/drivers/gpu/drm.ko", "kernel/drivers/gpus"):
        (tmp_path / "modules" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "modules" / name).write_text(name)
    archive = tmp_path / "root.tar"
    rootfs.add(archive, tmp_path / "modules", "./lib", without=("drivers/gpu",))
    with tarfile.open(archive) as made:
        assert made.getnames() == [
            *("./lib/kernel", "./lib/kernel/drivers", "./lib/kernel/drivers/gpus"),
            *("./lib/kernel/fs", "./lib/kernel/fs/ext4.ko"),
        ]
        entry = made.getmember("./lib/kernel/fs/ext4.ko")
        assert (entry.uid, entry.gid, entry.mtime, entry.uname) == (0, 0, 0, "root")


def test_without_the_tools_for_disks_their_packages_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rootfs.shutil, "which", lambda program, path: program == "mke2fs")
    assert rootfs.missing().endswith("; apt-get install mmdebstrap qemu-utils")


def test_an_ordinary_user_needs_ids_for_the_owners_of_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rootfs.shutil, "which", lambda program, path: program)
    monkeypatch.setattr(rootfs, "_SUBORDINATE", tmp_path / "subuid")
    (tmp_path / "subuid").write_text("annabel:100000:65536\n")
    monkeypatch.setattr(rootfs.getpass, "getuser", lambda: "anna")
    monkeypatch.setattr(rootfs.os, "geteuid", lambda: 1000)
    assert rootfs.missing().startswith("anna has no subordinate user ids; usermod --add-subuids")
    (tmp_path / "subuid").write_text("annabel:100000:65536\nanna:165536:65536\n")
    assert rootfs.missing() == ""
