"""Another machine for real: paramiko against an sshd of the test's own, in its sandbox."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mininet.topo import Topo
from remote_lab import LIMIT_S, PORT, Server, needs_sshd, running, toy, wait_until

from testbed.cli.main import main
from testbed.errors import FeatureError, MachineError, PrivilegeError
from testbed.kernel.namespaces import mount
from testbed.network import Network
from testbed.remote import command, project, transfer, wheels
from testbed.remote.command import Captured
from testbed.remote.connection import Connection
from testbed.remote.keys import KnownHosts, make_pair
from testbed.remote.progress import Progress
from testbed.remote.session import LinkLost

pytestmark = [pytest.mark.live, needs_sshd]

# A tree that tries to get away: a child, one in a session of its own, one of init's.
TREE = "sleep 7771 & setsid sleep 7772 & (setsid sleep 7773 &) ; echo up; wait"
SLEEPERS = ("7771", "7772", "7773")


@contextlib.contextmanager
def there(folder: Path, **options: Any) -> Iterator[tuple[Server, Connection]]:
    with (
        Server(folder / "server", **options) as server,
        server.answers().connect() as connection,
    ):
        yield server, connection


def run(connection: Connection, script: str, **options: Any) -> tuple[int, Captured]:
    streams = options.pop("streams", None) or Captured()
    status = command.run(
        connection, ["sh", "-c", script], streams=streams, limit_s=LIMIT_S, **options
    )
    return status, streams


def alive() -> list[int]:
    return [pid for word in SLEEPERS for pid in running(word)]


def gone() -> bool:
    return not alive()


# -- commands ------------------------------------------------------------------------------------


def test_output_errors_status_folder_and_environment(tmp_path: Path) -> None:
    with there(tmp_path) as (server, connection):
        script = "pwd; echo $MARK; echo wrong >&2; exit 3"
        status, said = run(connection, script, environment={"MARK": "here"})
        assert (status, said.output) == (3, f"{server.home}\nhere\n")
        assert said.last_words == "wrong"
        assert run(connection, "kill -TERM $$")[0] == 128 + signal.SIGTERM
        assert run(connection, "cat; test -t 0 || exit 4")[0] == 4  # no input, no terminal


def test_much_output_arrives_whole(tmp_path: Path) -> None:
    with there(tmp_path) as (_server, connection):
        status, said = run(connection, "seq 200000; seq 50000 >&2")
        assert status == 0
        assert said.output.split() == [str(number) for number in range(1, 200001)]
        assert said.last_words == "50000"


class Waiting(Captured):
    """Calls `heard` with what has come so far."""

    def __init__(self, heard: Any) -> None:
        super().__init__()
        self._heard = heard

    def write(self, kind: bytes, data: bytes) -> None:
        super().write(kind, data)
        self._heard(self.output)


def test_output_is_live(tmp_path: Path) -> None:
    """The command goes on only when its first line has arrived here."""
    door = tmp_path / "door"
    os.mkfifo(door)

    def heard(output: str) -> None:
        if output == "first\n":
            door.write_text("open\n")

    with there(tmp_path) as (_server, connection):
        status, said = run(connection, f"echo first; cat {door}", streams=Waiting(heard))
    assert (status, said.output) == (0, "first\nopen\n")


def test_a_terminal_there_has_the_size_of_the_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "71")
    monkeypatch.setenv("LINES", "17")
    streams = Captured()
    streams.terminal = ["output"]
    with there(tmp_path) as (_server, connection):
        _status, said = run(connection, "stty size <&1 && echo all", streams=streams)
    assert said.output.split() == ["17", "71", "all"]


def test_what_a_command_leaves_in_the_background_ends_with_it(tmp_path: Path) -> None:
    with there(tmp_path) as (_server, connection):
        status, said = run(connection, TREE.replace("wait", "exit 5"))
        assert (status, said.output) == (5, "up\n")
        assert gone()


def test_a_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with there(tmp_path) as (_server, connection):
        with pytest.raises(MachineError, match="not done after 1 s"):
            command.run(connection, ["sh", "-c", TREE], streams=Captured(), limit_s=1)
        wait_until(gone, "its processes to end")


@pytest.mark.parametrize(
    ("argv", "folder", "said"),
    [
        (["no-such-program"], "~", "there: no-such-program: No such file"),
        (["true"], "~/nowhere", "/home/nowhere: No such file"),
        (["/etc/passwd"], "~", "/etc/passwd: Permission denied"),
    ],
)
def test_what_cannot_be_started_is_one_line(
    argv: list[str], folder: str, said: str, tmp_path: Path
) -> None:
    with there(tmp_path) as (_server, connection), pytest.raises(MachineError, match=said):
        command.run(connection, argv, folder=folder, streams=Captured())


# -- the end of the link -------------------------------------------------------------------------

CLIENT = """
import sys
from pathlib import Path
from testbed.cli.main import main
from testbed.remote import command, session
from testbed.remote.address import Address
from testbed.remote.connection import Connection
from testbed.remote.keys import KnownHosts

folder, script = Path(sys.argv[1]), sys.argv[2]
key = str(folder / "user_key")
address = Address(host="127.0.0.1", port=int(sys.argv[3]), user="root", keys=(key,))
streams = command.Streams(reads=sys.argv[4] == "reads")
with Connection.open(address, KnownHosts(folder / "known_hosts"), name="there") as connection:
    sys.exit(command.run(connection, ["sh", "-c", script], streams=streams))
"""


def client(server: Server, script: str, *, reads: bool = False, **options: Any) -> Any:
    """A process that runs a script there."""
    words = [str(server.folder), script, str(PORT), "reads" if reads else ""]
    return subprocess.Popen([sys.executable, "-c", CLIENT, *words], text=True, **options)


def test_ctrl_c_goes_to_the_command_which_ends_as_it_likes(tmp_path: Path) -> None:
    script = "trap 'echo kept; exit 9' INT; echo up; while :; do sleep 0.1; done"
    with there(tmp_path) as (server, _connection):
        child = client(server, script, stdout=subprocess.PIPE)
        assert child.stdout.readline() == "up\n"
        child.send_signal(signal.SIGINT)
        said, _ = child.communicate(timeout=LIMIT_S)
        assert (child.returncode, said) == (9, "kept\n")


def test_a_second_ctrl_c_ends_what_does_not_listen(tmp_path: Path) -> None:
    script = f"trap '' INT TERM; {TREE}"
    with there(tmp_path) as (server, _connection):
        child = client(server, script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert child.stdout.readline() == "up\n"
        deadline = time.monotonic() + LIMIT_S
        while child.poll() is None and time.monotonic() < deadline:
            child.send_signal(signal.SIGINT)
            time.sleep(0.2)
        child.communicate(timeout=LIMIT_S)
        wait_until(gone, "what ran there to end")


def test_a_client_that_is_killed_leaves_nothing_running_there(tmp_path: Path) -> None:
    with there(tmp_path) as (server, _connection):
        child = client(server, TREE, stdout=subprocess.PIPE)
        assert child.stdout.readline() == "up\n"
        wait_until(lambda: len(alive()) == len(SLEEPERS), "all of it to run")
        child.kill()
        child.communicate(timeout=LIMIT_S)
        wait_until(gone, "what ran there to end")
        wait_until(lambda: not running("/proc/self/fd/3"), "the far side to end")


def test_a_command_is_told_before_it_is_killed(tmp_path: Path) -> None:
    mark = tmp_path / "told"
    script = f"trap 'echo told >{mark}; exit' TERM; echo up; while :; do sleep 0.1; done"
    with there(tmp_path) as (server, _connection):
        child = client(server, script, stdout=subprocess.PIPE)
        assert child.stdout.readline() == "up\n"
        child.kill()
        child.communicate(timeout=LIMIT_S)
        wait_until(mark.exists, "the command to be told")


class Apart(Topo):
    """Two machines and a cable."""

    def build(self) -> None:
        for name in ("here", "there"):
            self.addHost(name, ip=None)
        ends = {f"params{end}": {"ip": f"10.0.0.{end}/24"} for end in (1, 2)}
        self.addLink("here", "there", intfName1="wire", **ends)


def test_a_link_that_is_cut_ends_both_sides(tmp_path: Path) -> None:
    """Nothing is said when a link goes down: each end notices that it hears nothing."""
    with Network(Apart()) as net:
        options = {"address": "10.0.0.2", "popen": net["there"].popen}
        with Server(tmp_path / "server", **options) as server:
            with net["here"].netns:
                connection = server.answers().connect()
            heard = threading.Event()

            def cut(_output: str) -> None:
                heard.set()
                net["here"].cmd("ip link set wire down")

            with connection, pytest.raises(LinkLost, match="there has not been heard for 2 s"):
                run(connection, TREE, streams=Waiting(cut), patience_s=2.0)
            assert heard.is_set()
            wait_until(gone, "what ran there to end")


def test_keys_of_a_shell_go_there_ctrl_c_too(tmp_path: Path) -> None:
    """Through a terminal here, a terminal there."""
    with there(tmp_path) as (server, _connection):
        master, slave = pty.openpty()
        child = client(
            server, "exec sh -i", reads=True, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        screen = Screen(master)
        screen.type("sleep 7771; echo st''opped\n")
        wait_until(lambda: bool(alive()), "the command there")
        screen.type("\3")
        screen.type("echo go''ne; exit 6\n")
        wait_until(lambda: child.poll() is not None, "the shell to end")
        assert "gone" in screen.text
        assert child.returncode == 6
        assert gone()


class Screen:
    """The user's end of a terminal."""

    def __init__(self, master: int) -> None:
        self._master = master
        self.text = ""
        threading.Thread(target=self._read, daemon=True).start()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(self._master, 4096):
                self.text += piece.decode(errors="replace")


def test_input_goes_there_to_its_end(tmp_path: Path) -> None:
    with there(tmp_path) as (server, _connection):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        child = client(server, "wc -c; echo done", reads=True, **pipes)
        said, _ = child.communicate("x" * 3_000_000, timeout=LIMIT_S)
        assert said.split() == ["3000000", "done"]
        child = client(server, "exec 0<&-; echo deaf", reads=True, **pipes)
        with contextlib.suppress(BrokenPipeError):
            said, _ = child.communicate("x" * 3_000_000, timeout=LIMIT_S)
        assert said == "deaf\n"


# -- files ---------------------------------------------------------------------------------------


def send(connection: Connection, root: Path) -> transfer.Sent:
    return transfer.send(connection, root, project.entries(root), "~/copy")


def test_only_what_differs_is_sent(tmp_path: Path) -> None:
    root = toy(tmp_path / "p")
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "file").write_text("x" * 100_000)
    (root / "link").symlink_to("deep/er/file")
    with there(tmp_path) as (server, connection):
        copy = server.home / "copy"
        everything = len(project.entries(root))
        assert send(connection, root).files == everything
        assert (copy / "deep" / "er" / "file").read_text() == "x" * 100_000
        assert os.readlink(copy / "link") == "deep/er/file"
        assert os.access(copy / "setup.sh", os.X_OK)
        assert (send(connection, root).files, send(connection, root).bytes) == (0, 0)
        (copy / ".venv").mkdir()
        (copy / ".venv" / "kept").write_text("")
        (root / "tool").write_text("other")
        (root / "setup.sh").chmod(0o644)
        (copy / "requirements.lock").write_text("changed there")
        (root / "deep" / "er" / "file").unlink()
        again = send(connection, root)
        assert (again.files, again.removed) == (3, 1)
        assert (copy / "tool").read_text() == "other"
        assert not os.access(copy / "setup.sh", os.X_OK)
        assert (copy / "requirements.lock").read_text() == ""
        assert not (copy / "deep").exists()
        assert (copy / ".venv" / "kept").exists()


def test_a_disk_that_is_full_is_one_line(tmp_path: Path) -> None:
    root = toy(tmp_path / "p")
    (root / "large").write_bytes(os.urandom(3_000_000))
    with there(tmp_path) as (server, connection):
        mount("tmpfs", str(server.home), "tmpfs", 0, "size=1m")
        with pytest.raises(MachineError, match="there: disk full"):
            send(connection, root)
        assert not list((server.home / "copy").glob(".large.part"))


def test_results_that_were_cut_off_on_their_way_come_again(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()

    class Cut(Progress):
        def moved(self, done: int, total: int) -> None:
            raise LinkLost("cut")

    with there(tmp_path) as (server, connection):
        run_there = server.home / "copy" / "results" / "case" / "1"
        (server.home / "copy" / ".remote").mkdir(parents=True)
        run_there.mkdir(parents=True)
        (run_there / "certificate.json").write_text("{}")
        (run_there / "run.json").write_text(json.dumps({"machine": {"remote": {"name": "there"}}}))
        with pytest.raises(LinkLost):
            transfer.bring(connection, "~/copy", ["results"], here, progress=Cut())
        assert [path.name for path in (here / "results" / "case" / "1").iterdir()] == ["run.json"]
        transfer.bring(connection, "~/copy", ["results"], here)
        (run,) = (here / "results" / "case").iterdir()
        assert (run / "certificate.json").read_text() == "{}"


def test_only_new_results_come_back(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    with there(tmp_path) as (server, connection):
        run_there = server.home / "copy" / "results" / "case" / "1"
        (server.home / "copy" / ".remote").mkdir(parents=True)
        bring = lambda: transfer.bring(connection, "~/copy", ["results"], here)  # noqa: E731
        assert bring() == []
        run_there.mkdir(parents=True)
        (run_there / "run.json").write_text(json.dumps({"machine": {"remote": {"name": "there"}}}))
        (run_there / "large").write_bytes(os.urandom(2_000_000))
        assert bring() == [here / "results" / "case" / "1"]
        brought = here / "results" / "case" / "1" / "large"
        assert brought.read_bytes() == (run_there / "large").read_bytes()
        brought.unlink()
        assert bring() == []
        assert not brought.exists()  # it was brought once
        (run_there / "report.html").write_text("")
        assert bring() == [here / "results" / "case" / "1"]
        assert not brought.exists()


# -- who is let in -------------------------------------------------------------------------------


def test_nobody_is_let_in_without_a_key_that_fits(tmp_path: Path) -> None:
    with there(tmp_path) as (server, _connection):
        make_pair(tmp_path / "other")
        stranger = replace(server.address, keys=(str(tmp_path / "other"),))
        with pytest.raises(PrivilegeError, match="there refuses root: none of 1 keys"):
            Connection.open(stranger, server.known, name="there")
        nothing = replace(server.address, keys=(str(tmp_path / "nothing"),))
        with pytest.raises(PrivilegeError, match=r"nothing cannot be used: .*No such file"):
            Connection.open(nothing, server.known, name="there")


def test_a_host_with_another_key_is_not_talked_to(tmp_path: Path) -> None:
    with there(tmp_path) as (server, _connection):
        entry = server.known.path.read_text()
        other = make_pair(tmp_path / "other").rpartition(" ")[0]
        server.known.path.write_text(f"{entry.split()[0]} {other}\n")
        with pytest.raises(MachineError, match="is not the one known"):
            server.connect()
        with pytest.raises(FeatureError, match=r"host key of .* is not known") as refused:
            Connection.open(server.address, KnownHosts(tmp_path / "k", users=tmp_path / "none"))
        vouched = refused.value.remedy.rpartition(" ")[2]
        assert vouched.startswith("SHA256:")
        unknown = KnownHosts(tmp_path / "k", users=tmp_path / "none")
        Connection.open(server.address, unknown, vouched=vouched).close()
        assert unknown.path.read_text().split()[1:] == entry.split()[1:]


def test_a_machine_that_is_not_there_or_speaks_something_else(tmp_path: Path) -> None:
    with there(tmp_path) as (server, _connection):
        nowhere = replace(server.address, port=1)
        with pytest.raises(MachineError, match="is not reached: Connection refused; is it up"):
            Connection.open(nowhere, server.known)
        through = replace(server.address, through="echo HTTP/1.1 400; cat >/dev/null")
        with pytest.raises(MachineError, match="does not speak SSH"):
            Connection.open(through, server.known, limit_s=3)
        through = replace(server.address, through=f"{sys.executable} -c '{PIPE}' {PORT}")
        with Connection.open(through, server.known) as connection:
            assert run(connection, "exit 7")[0] == 7


PIPE = """
import os, socket, sys, threading
line = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def up():
    while piece := os.read(0, 9999): line.sendall(piece)
    os._exit(0)
threading.Thread(target=up).start()
while piece := line.recv(9999): os.write(1, piece)
"""


def test_a_machine_without_python_is_told_so(tmp_path: Path) -> None:
    refused = pytest.raises(FeatureError, match=r"^there has no python3; apt-get install python3$")
    with there(tmp_path, path="/nowhere") as (_server, connection), refused:
        run(connection, "true")


# -- all of it -----------------------------------------------------------------------------------

TOOL = """#!/bin/sh
[ "$1" = run ] || { echo "$@"; exit 4; }
mkdir -p results/case/1
printf '{"machine": {"remote": %s}}' "$(cat "$(dirname "$0")/../../.remote/machine.json")" \\
    >results/case/1/run.json
echo "$2 has run"
"""


def test_a_machine_is_brought_up_used_and_brought_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = toy(tmp_path / "p", TOOL)
    monkeypatch.setattr(project, "ROOT", root)
    monkeypatch.setattr(wheels, "index_is_reached", lambda _connection: True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(root)

    def testbed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["vm", *words])
        return (ended.value.code, *capfd.readouterr())  # type: ignore[return-value]

    with there(tmp_path) as (server, _connection):
        key = server.address.keys[0]
        host = ("--host", f"root@127.0.0.1:{PORT}", "--key", key)
        status, _out, err = testbed("up", *host)
        assert status == 2
        vouched = err.strip().rpartition(" ")[2]
        status, out, err = testbed("up", *host, "--fingerprint", vouched)
        assert (status, err.count("setup: here")) == (0, 1)
        assert out == f"default is ready (host, root@127.0.0.1:{PORT}): testbed vm run USE-CASE\n"
        status, out, err = testbed("run", "case", "--quick")
        assert (status, out) == (0, "case has run\n")
        assert "setup: here" not in err
        assert f"{root}/results/case/1 is here" in err
        run = json.loads((root / "results" / "case" / "1" / "run.json").read_text())
        assert run["machine"]["remote"] == {
            "name": "default", "provider": "host", "address": f"root@127.0.0.1:{PORT}",
        }  # fmt: skip
        assert testbed("run", "doctor", "--json")[:2] == (4, "doctor --json\n")
        (root / "setup.sh").write_text((root / "setup.sh").read_text() + "echo wrong >&2; exit 1\n")
        status, _out, err = testbed("run", "case")
        assert (status, err.splitlines()[-1]) == (2, "testbed: default is not set up: wrong")
        assert testbed("ssh", "--", "echo $((6 * 7)); exit 3")[:2] == (3, "42\n")
        assert testbed("list")[1] == f"default  host  running  root@127.0.0.1:{PORT}\n"
        assert testbed("down", "--destroy")[0] == 0
        assert testbed("list")[1] == ""
