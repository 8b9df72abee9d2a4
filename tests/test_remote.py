"""Other machines, without one: addresses, keys, files, providers, the command line."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from remote_lab import toy
from run_lab import tiny, told

from testbed.cli import vm as cli
from testbed.cli.main import main
from testbed.errors import (
    ExperimentError,
    FeatureError,
    MachineError,
    ParameterError,
    UserError,
)
from testbed.remote import machines, project, setup, transfer
from testbed.remote.address import Address, parse
from testbed.remote.far.wire import Decoder, frame
from testbed.remote.keys import KnownHosts, fingerprint, make_pair
from testbed.remote.machines import Machine
from testbed.remote.progress import Progress
from testbed.remote.providers import KINDS, choose, provider, qemu, vagrant
from testbed.report.publish import publish
from testbed.run import provenance


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# -- addresses -----------------------------------------------------------------------------------

SETTINGS = """
Host lab
  HostName lab.example.net
  Port 2200
  User ann
  IdentityFile /keys/lab
Host behind
  ProxyJump ann@gate
"""


@pytest.mark.parametrize(
    ("text", "host", "port", "user"),
    [
        ("bob@h.example", "h.example", 22, "bob"),
        ("bob@h:2022", "h", 2022, "bob"),
        ("bob@[fe80::1%eth0]:7", "fe80::1%eth0", 7, "bob"),
        ("lab", "lab.example.net", 2200, "ann"),
        ("bob@lab:1", "lab.example.net", 1, "bob"),
    ],
)
def test_an_address_is_what_was_written_then_what_ssh_config_says(
    text: str, host: str, port: int, user: str, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(SETTINGS)
    found = parse(text, settings=tmp_path / "config")
    assert (found.host, found.port, found.user) == (host, port, user)
    assert Address.of(json.loads(json.dumps(found.as_dict()))) == found


def test_keys_and_ways_through_other_hosts_come_from_ssh_config(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(SETTINGS)
    assert parse("lab", settings=tmp_path / "config").keys == ("/keys/lab",)
    assert parse("lab", key="/mine", settings=tmp_path / "config").keys == ("/mine",)
    assert parse("behind", settings=tmp_path / "config").through == "ssh -W [behind]:22 ann@gate"


@pytest.mark.parametrize("text", ["", "a b", "@h", "h:", "h:0", "h:65536", "h:ssh", "fe80::1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="USER@HOST"):
        parse(text)


# -- keys ----------------------------------------------------------------------------------------


def key_in(folder: Path) -> Any:
    import paramiko

    make_pair(folder)
    return paramiko.PKey.from_path(folder)


def test_a_key_pair_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    line = make_pair(tmp_path / "key")
    assert line.startswith("ssh-ed25519 ")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert make_pair(tmp_path / "key") == line


def test_a_host_key_is_known_only_where_somebody_vouches_for_it(tmp_path: Path) -> None:
    key, other = key_in(tmp_path / "a"), key_in(tmp_path / "b")
    users = tmp_path / "users"

    def known(name: str) -> KnownHosts:
        return KnownHosts(tmp_path / name, users=users)

    with pytest.raises(FeatureError, match=f"--fingerprint {fingerprint(key)}".replace("+", r"\+")):
        known("1").check("h", key)
    with pytest.raises(MachineError, match="another host key"):
        known("1").check("h", key, vouched=fingerprint(other))
    known("1").check("h", key, vouched=fingerprint(key))
    known("2").check("h", key, trust_first=True)
    users.write_text(f"h {key.get_name()} {key.get_base64()}\n")
    known("3").check("h", key)
    for name in ("1", "2", "3"):
        known(name).check("h", key)  # remembered
        with pytest.raises(MachineError, match="is not the one known"):
            known(name).check("h", other, trust_first=True, vouched=fingerprint(other))


# -- frames --------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from([b"O", b"R", b"B", b"J"]), st.binary(max_size=90))),
    st.lists(st.integers(1, 40), min_size=1),
)
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    frames: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(frame(*each) for each in frames)
    decoder, found, turn = Decoder(), [], 0
    while stream:
        size = cuts[turn % len(cuts)]
        found += decoder.feed(stream[:size])
        stream, turn = stream[size:], turn + 1
    assert found == frames


# -- the project ---------------------------------------------------------------------------------


def test_the_project_is_what_git_tracks_as_it_is_now_and_what_is_new(tmp_path: Path) -> None:
    root = toy(tmp_path / "p")
    (root / "tool").unlink()
    (root / "setup.sh").write_text("changed")
    (root / "new file").write_text("")
    (root / "link").symlink_to("nowhere")
    (root / "results").mkdir()
    (root / "results" / "old").write_text("")
    found = {each.path: each for each in project.entries(root)}
    assert set(found) == {
        ".gitignore", "setup.sh", "pyproject.toml", "requirements.lock", "new file", "link",
    }  # fmt: skip
    assert found["setup.sh"].size == len("changed")
    assert found["setup.sh"].mode & 0o111


def test_what_is_no_checkout_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "setup.sh").write_text("")
    with pytest.raises(FeatureError, match="not a git checkout"):
        project.entries(tmp_path)


def test_runs_on_another_machine_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "remote" not in provenance.machine()
    about = {"name": "m", "provider": "qemu", "address": "root@127.0.0.1:7"}
    notes = {project.MACHINE: about, project.REVISION: {"commit": "abc", "changed_files": 2}}
    monkeypatch.setattr(provenance, "note", notes.get)
    assert provenance.machine()["remote"] == about
    assert provenance.revision() == {"commit": "abc", "changed_files": 2}
    bundle = told(tmp_path)
    assert bundle.run["machine"]["remote"] == about
    page = publish(tiny(), bundle).report.read_text()
    for words in ("m (qemu, root@127.0.0.1:7)", "abc and 2 files changed since"):
        assert words in page


# -- what comes back -----------------------------------------------------------------------------


def placed(folder: Path) -> transfer.Placed:
    return transfer.Placed(folder, ["results"], "m")


@pytest.mark.parametrize("name", ["../x", "results/../x", "/etc/x", "other/x", "results/a/../../x"])
def test_what_was_not_asked_for_is_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="was not asked for"):
        placed(tmp_path).place(name)


def test_nothing_is_written_through_links_that_lead_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "here" / "results").mkdir(parents=True)
    (tmp_path / "here" / "results" / "case").symlink_to(tmp_path)
    with pytest.raises(ExperimentError, match="leads out of"):
        placed(tmp_path / "here").place("results/case/1/run.json")


@pytest.mark.parametrize(
    ("where", "name"), [("m", "1"), ("other", "1-m"), ("", "1-m"), ("no json", "1-m")]
)
def test_a_run_that_is_here_and_is_not_that_machines_is_left_alone(
    where: str, name: str, tmp_path: Path
) -> None:
    run = tmp_path / "results" / "case" / "1"
    run.mkdir(parents=True)
    machine = {"remote": {"name": where}} if where else {}
    text = "{" if where == "no json" else json.dumps({"machine": machine})
    (run / "run.json").write_text(text)
    place = placed(tmp_path).place("results/case/1/series/a.parquet")
    assert place == tmp_path / "results" / "case" / name / "series" / "a.parquet"


# -- machines ------------------------------------------------------------------------------------


def made(name: str, kind: str = "host", **options: Any) -> Machine:
    address = Address(host="127.0.0.1", port=1, user="u")
    machine = Machine(name, kind, {"host": "u@127.0.0.1:1", "key": "", **options}, address)
    machine.save()
    return machine


def test_a_machine_is_found_by_name_or_because_it_is_the_only_one() -> None:
    with pytest.raises(UserError, match="there is no machine; testbed vm up makes one"):
        machines.find()
    made("lab")
    assert machines.find() == machines.find("lab") == machines.known("lab")
    made("attic")
    with pytest.raises(UserError, match=r"which machine\?; --name attic or lab"):
        machines.find()
    made("default")
    assert machines.find().name == "default"
    with pytest.raises(UserError, match="no machine labb; there is attic, default, lab"):
        machines.find("labb")
    machines.find("lab").forget()
    assert [each.name for each in machines.every()] == ["attic", "default"]


@pytest.mark.parametrize("name", ["", "-a", "A", "a/b", "..", "a" * 33])
def test_a_name_is_a_name(name: str) -> None:
    with pytest.raises(ParameterError, match="--name"):
        machines.known(name)


def test_a_machine_is_brought_up_by_one_command_at_a_time() -> None:
    machine = made("lab")
    with machine.locked(), pytest.raises(MachineError, match="by another command"):  # noqa: SIM117
        with machines.find("lab").locked():
            pass
    with machine.locked():
        pass


def test_a_record_that_cannot_be_read_is_named_with_the_remedy() -> None:
    machine = made("lab")
    (machine.folder / "machine.json").write_text("{")
    with pytest.raises(MachineError, match=r"machine.json cannot be read.*remove .*/lab"):
        machines.every()


# -- providers -----------------------------------------------------------------------------------


def lacking(monkeypatch: pytest.MonkeyPatch, **reasons: str) -> None:
    for kind, reason in reasons.items():
        monkeypatch.setattr(KINDS[kind], "missing", lambda reason=reason: reason)


def test_vagrant_goes_before_qemu_and_why_not_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, vagrant="", qemu="")
    assert choose() == ("vagrant", "")
    assert choose("qemu") == ("qemu", "")
    lacking(monkeypatch, vagrant="vagrant is not installed; apt-get install it")
    assert choose() == ("qemu", "vagrant is not installed")
    lacking(monkeypatch, qemu="the image full is not built; testbed image build full")
    with pytest.raises(FeatureError) as refused:
        choose()
    assert str(refused.value) == (
        "no machine: vagrant is not installed, and the image full is not built; "
        "apt-get install it, or testbed image build full, or --host USER@HOST"
    )
    with pytest.raises(FeatureError, match="no machine: vagrant is not installed; apt-get"):
        choose("vagrant")


SSH_CONFIG = """Host default
  HostName 192.168.121.7
  User vagrant
  Port 2222
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  IdentityFile "/home/ann/my boxes/private_key"
"""
FAKE_VAGRANT = """#!/bin/sh
echo "$@" >>"$LOG"
case "$1" in
up) echo "Bringing machine 'default' up"; [ -z "$FAILS" ] || { echo "$FAILS" >&2; exit 1; } ;;
ssh-config) cat "$CONFIG" ;;
status) echo "1,default,provider-name,libvirt"; echo "2,default,state,$STATE" ;;
esac
"""


@pytest.fixture
def vagrant_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `vagrant` that notes how it is called."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "vagrant"
    program.write_text(FAKE_VAGRANT)
    program.chmod(0o755)
    (tmp_path / "config").write_text(SSH_CONFIG)
    monkeypatch.setattr(vagrant, "ROOT", toy(tmp_path / "p"))
    for name, value in (("LOG", tmp_path / "log"), ("CONFIG", tmp_path / "config"),
                        ("STATE", "shutoff"), ("FAILS", "")):  # fmt: skip
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path / "log"


def test_vagrants_machine_is_brought_up_asked_and_brought_down(
    vagrant_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no Vagrantfile" in vagrant.Vagrant.missing()
    (vagrant.ROOT / "Vagrantfile").write_text("")
    assert vagrant.Vagrant.missing() == ""
    ours = provider(Machine("default", "vagrant"))
    address = ours.up(Progress())
    assert address == Address(
        host="192.168.121.7", port=2222, user="vagrant", keys=("/home/ann/my boxes/private_key",),
        root=True, folder="/home/vagrant/liquidnet",
    )  # fmt: skip
    assert ours.state() == "stopped"
    monkeypatch.setenv("STATE", "running")
    assert ours.state() == "running"
    ours.down(Progress(), destroy=False)
    ours.down(Progress(), destroy=True)
    assert vagrant_log.read_text().split("\n") == [
        "up", "ssh-config", "status --machine-readable", "status --machine-readable", "halt",
        "destroy --force", "",
    ]  # fmt: skip


def test_vagrants_failure_is_one_line(vagrant_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "The box could not be found.")
    with pytest.raises(MachineError, match=r"^vagrant up: The box could not be found\.$"):
        provider(Machine("default", "vagrant")).up(Progress())


OPTIONS = {
    "memory_mb": 2048, "cpus": 2, "internet": False,
    "kernel": "/k", "initrd": "/i", "below": "/below",
}  # fmt: skip


def test_qemu_boots_the_image_under_a_layer_with_one_way_in() -> None:
    words = qemu.command_line("m", OPTIONS, "ssh-ed25519 AAAA liquidnet", "tcg")
    line = " ".join(words)
    for part in ("-name liquidnet-m ", "-m 2048 -smp 2", "-kernel /k -initrd /i", "-cpu Nehalem",
                 'systemd.set_credential="ssh.authorized_keys.root:ssh-ed25519 AAAA liquidnet"',
                 "restrict=on,hostfwd=tcp:127.0.0.1:0-:22", "-pidfile pid -daemonize"):  # fmt: skip
        assert part in line
    assert "/below" not in line
    online = qemu.command_line("m", {**OPTIONS, "internet": True}, "key", "kvm")
    assert "restrict=off" in " ".join(online)
    assert online[online.index("-accel") + 1] == "kvm"


@pytest.mark.parametrize(("wrong", "said"), [({"memory_mb": 100}, "384M"), ({"cpus": 0}, "1 to")])
def test_qemu_is_not_given_what_no_machine_can_be(wrong: dict[str, int], said: str) -> None:
    given = {"memory_mb": 2048, "cpus": 2, "internet": False, **wrong}
    with pytest.raises(ParameterError, match=said):
        qemu.Qemu.options(given)


def test_a_machine_whose_image_is_gone_says_so(tmp_path: Path) -> None:
    machine = made("m", "qemu", **OPTIONS)
    (machine.folder / "disk.qcow2").write_text("")
    with pytest.raises(MachineError, match=r"is gone \(/below\); testbed vm down --destroy"):
        provider(machine).up(Progress())


def test_a_number_that_is_another_process_by_now_is_not_taken_for_a_machine() -> None:
    machine = made("m", "qemu", **OPTIONS)
    (machine.folder / "pid").write_text(str(os.getpid()))
    ours = provider(machine)
    assert ours.state() == "stopped"
    ours.down(Progress(), destroy=False)  # this process is still here


# -- the command line ----------------------------------------------------------------------------

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def testbed(capsys: pytest.CaptureFixture[str]) -> Command:
    def command(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["vm", *words])
        assert isinstance(ended.value.code, int)
        return (ended.value.code, *capsys.readouterr())

    return command


@pytest.mark.parametrize(
    ("words", "there"),
    [
        ("trusted_pooling --quick", "run trusted_pooling --quick"),
        ("run trusted_pooling", "run trusted_pooling"),
        ("testbed bench links", "bench links"),
        ("doctor --json", "doctor --json"),
        ("--version", "--version"),
    ],
)
def test_a_use_case_alone_is_run_other_commands_are_named(words: str, there: str) -> None:
    assert cli.command(tuple(words.split())) == there.split()


def test_machines_are_not_brought_up_from_machines() -> None:
    with pytest.raises(UserError):
        cli.command(("vm", "up"))


@pytest.mark.parametrize(
    ("words", "here", "expected"),
    [
        ("run x", "/p", ("", ["results"])),
        ("run x", "/p/sub", ("sub", ["sub/results"])),
        ("run x --results out", "/p", ("", ["out"])),
        ("run x --results=a/b", "/p/sub", ("sub", ["sub/a/b"])),
        ("run x", "/elsewhere", ("", ["results"])),
    ],
)
def test_paths_mean_the_same_there_as_here(
    words: str, here: str, expected: tuple[str, list[str]]
) -> None:
    assert cli.places(words.split(), Path(here), Path("/p")) == expected


@pytest.mark.parametrize("path", ["/tmp/x", "../x"])
def test_results_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(UserError, match="give a path below"):
        cli.places(["run", "x", "--results", path], Path("/p"), Path("/p"))


def test_list_and_status_tell_of_machines(
    testbed: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert testbed("list") == (0, "", "")
    assert testbed("list", "--json")[1].strip() == "[]"
    made("lab")
    status, out, _ = testbed("status", "--json")
    facts = json.loads(out)
    assert (status, facts["name"], facts["provider"]) == (0, "lab", "host")
    assert facts["state"].startswith("not reached")
    assert testbed("list")[1].startswith("lab  host  not reached")
    made("wall", "vagrant")
    monkeypatch.setenv("PATH", "/nowhere")
    first, second = testbed("list")[1].splitlines()
    assert first.startswith("lab  host  not reached")
    assert second.startswith(
        "wall  vagrant  not known: vagrant: No such file or directory; apt-get"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ssh",), "there is no machine"),
        (("run", "doctor"), "there is no machine"),
        (("up", "--host", "a b"), "--host a b; give HOST"),
        (("up", "--qemu", "--host", "h"), "--qemu and --host"),
        (("up", "--qemu", "--memory", "much"), "--memory much"),
        (("up", "--name", "A", "--qemu"), "--name A"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(
    words: tuple[str, ...], said: str, testbed: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking(monkeypatch, qemu="")
    status, out, err = testbed(*words)
    assert (status, out) == (2, "")
    assert err.startswith(f"testbed: {said}")
    assert err.count("\n") == 1
    assert machines.every() == []


def test_another_machine_of_the_same_name_is_refused(testbed: Command) -> None:
    made("default")
    for words in (("--qemu",), ("--host", "else@where")):
        status, _, err = testbed("up", *words)
        assert status == 2
        assert "there is a machine default already (host, u@127.0.0.1:1)" in err


def test_a_machine_that_does_not_come_up_is_not_kept(
    testbed: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def up(*_: Any) -> Address:
        raise ExperimentError("m ended while booting: Kernel panic")

    lacking(monkeypatch, qemu="")
    monkeypatch.setattr(qemu.Qemu, "up", up)
    status, _, err = testbed("up", "--qemu")
    assert (status, err) == (1, "testbed: m ended while booting: Kernel panic\n")
    assert not Path(machines.Machine("default", "qemu").folder).exists()


def test_packages_come_from_here_where_the_index_is_not_reached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """setup.sh gets pip's settings only then, and is not run where nothing has changed."""
    calls: list[dict[str, str]] = []
    sent = transfer.Sent(0, 0, 0, "/there", "")
    monkeypatch.setattr(transfer, "send", lambda *_a, **_k: sent)
    monkeypatch.setattr(
        setup, "run", lambda *_a, environment, **_k: calls.append(dict(environment)) or 0
    )
    monkeypatch.setattr(setup.wheels, "folder", lambda *_: tmp_path)
    connection: Any = type("C", (), {"address": Address(host="h", user="u"), "name": "m"})()
    root = toy(tmp_path / "p")
    for reached in (True, False):
        monkeypatch.setattr(setup.wheels, "index_is_reached", lambda _, reached=reached: reached)
        assert setup.ready(connection, {}, root) == "/there"
    sent = dataclasses.replace(sent, ready=setup.stamp(root))
    setup.ready(connection, {}, root)
    assert [bool(each.get("PIP_NO_INDEX")) for each in calls] == [False, True]
