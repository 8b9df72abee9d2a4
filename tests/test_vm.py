"""Another kernel in a virtual machine: what is chosen and refused, and netem for real in there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from testbed import cache, doctor, vm
from testbed.errors import ExperimentError, FeatureError

# what a kernel must get right however late its timers are; rates are for `testbed bench vm`
SEMANTICS = "netem and (all_takes or over_updates or down or same_seed)"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "liquidnet"


def put_kernels(place: Path, *releases: str) -> None:
    for release in releases:
        image = place / "kernels" / f"linux-image-{release}-amd64" / "boot" / f"vmlinuz-{release}"
        image.parent.mkdir(parents=True)
        image.touch()


def test_the_newest_kernel_is_chosen_and_a_version_is_a_whole_one(place: Path) -> None:
    put_kernels(place, "6.1.0-9", "6.1.0-56", "6.12.9+deb12", "6.12.117+deb12")
    assert [path.name for path in vm.kernels()] == [
        f"vmlinuz-{release}"
        for release in ("6.12.117+deb12", "6.12.9+deb12", "6.1.0-56", "6.1.0-9")
    ]
    assert vm.kernels("6.1")[0].name == "vmlinuz-6.1.0-56"
    assert vm.kernels("6.12.11") == []


def test_of_debians_packages_only_generic_kernels_count() -> None:
    names = """linux-image-6.1.0-56-amd64
linux-image-6.1.0-56-cloud-amd64
linux-image-6.12-amd64
linux-image-6.12.117+deb12-amd64
linux-image-6.12.117+deb12-amd64-dbg
linux-image-amd64"""
    assert [match[0] for match in vm._GENERIC.finditer(names)] == [
        "linux-image-6.1.0-56-amd64",
        "linux-image-6.12.117+deb12-amd64",
    ]


def test_what_is_missing_comes_with_a_remedy(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm.shutil, "which", lambda _program, path: None)
    with pytest.raises(FeatureError, match=r"qemu.*; apt-get install qemu-system-x86 busybox"):
        vm.run(["true"])
    monkeypatch.setattr(vm.shutil, "which", lambda program, path: program)
    assert vm.missing().endswith("; testbed bench vm --fetch")


def test_an_environment_is_used_where_it_is_and_made_only_when_asked(place: Path) -> None:
    assert cache.environment("thing", ["thing==1"], fetch=False) is None
    (place / "thing").mkdir(parents=True)
    (place / "thing" / "requirements").write_text("thing==1")
    assert cache.environment("thing", ["thing==1"], fetch=False) == place / "thing" / "bin"
    assert cache.environment("thing", ["thing==2"], fetch=False) is None


def test_what_cannot_be_fetched_is_said_in_one_line() -> None:
    trace = "import sys; print('x\\nValueError: that is why\\nhint', file=sys.stderr); sys.exit(1)"
    with pytest.raises(FeatureError, match=r"^cannot get it: ValueError: that is why$"):
        cache._run([sys.executable, "-c", trace], "it")


ABSENT = doctor.reason("netem in a VM")
here = pytest.mark.skipif(bool(ABSENT), reason=ABSENT or "not skipped")


@here
def test_netem_does_what_it_should_on_a_kernel_that_has_it() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", SEMANTICS]
    # one processor: packets that leave by two may swap (limitations.md)
    status, output = vm.run([*command, "tests/test_links_conformance.py"], cpus=1, limit_s=600)
    assert status == 0, output
    assert "skipped" not in output
    assert "passed" in output


@here
def test_a_machine_that_takes_too_long_is_ended() -> None:
    with pytest.raises(ExperimentError, match="was not done after 1 s"):
        vm.run(["sleep", "60"], limit_s=1)
