"""Scripts in Mininet's style, which import nothing but Mininet, run as programs on this engine.

Each checks by assertions what it does with its network, and says "done" when it came through.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import doctor
from testbed.errors import TopologyError
from testbed.network import script

SCRIPTS = Path(__file__).parent / "mininet_scripts"
_NEEDS = {"cpu": "CPU limits", "vlan": "VLAN"}
_TESTBED = [sys.executable, "-m", "testbed.cli.main"]


def run(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_TESTBED, *arguments], input=stdin, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("name", sorted(path.stem for path in SCRIPTS.glob("*.py")))
def test_script(name: str) -> None:
    needed = _NEEDS.get(name)
    if needed and (reason := doctor.reason(needed)):
        pytest.skip(reason)
    if reason := doctor.reason("OpenFlow controller"):
        pytest.skip(reason)
    done = run("topo", "--script", SCRIPTS / f"{name}.py", stdin="h1 echo typed-$((1+1))\n")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.rstrip().endswith("done")
    if name == "processes":  # it opens the command line, once on a file and once on our input
        for said in ("0% dropped", "by-py", "typed-2"):
            assert said in done.stdout + done.stderr


def test_what_the_machine_cannot_do_is_refused_in_one_line() -> None:
    if not doctor.reason("VLAN"):
        pytest.skip("this kernel has VLANs")
    done = run("topo", "--script", SCRIPTS / "vlan.py")
    assert done.returncode == 2
    assert "vlan.py:" in done.stderr
    assert "this kernel has no VLANs (8021q); modprobe 8021q" in done.stderr


# -- what is a script, and what one that fails says ------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from mininet.net import Mininet\nnet = Mininet()\nnet.start()\n", True),
        ("def main(): pass\nif __name__ == '__main__':\n    main()\n", True),
        ("from mininet.topo import Topo\nclass T(Topo): pass\n", False),
        ("class T(Topo): pass\nif __name__ == '__main__':\n    T()\n", False),
        ("topos = {'x': lambda: None}\n", False),
        ("from other import topos\nprint(topos)\n", False),
        ("x = 1\n", False),
    ],
)  # fmt: skip
def test_which_files_are_scripts(tmp_path: Path, text: str, expected: bool) -> None:
    file = tmp_path / "file.py"
    file.write_text(text)
    assert script.is_script(file) is expected


def test_a_file_that_does_not_parse_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text("x = 1\nif\n")
    with pytest.raises(TopologyError, match=r"file\.py:2: SyntaxError"):
        script.is_script(file)


def test_arguments_reach_the_script_and_its_errors_come_as_one_line(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "import sys\n"
        "from mininet.net import Mininet\n"
        "print(sys.argv[1:], __name__)\n"
        "def build():\n"
        "    net = Mininet(controller=None)\n"
        "    net.addHost('h1')\n"
        "    net.addHost(sys.argv[1])\n"
        "if __name__ == '__main__':\n"
        "    build()\n"
        "    raise ValueError('mine')\n"
    )
    done = run("topo", file, "--", "h2", "-x")
    assert done.stdout == "['h2', '-x'] __main__\n"
    assert done.returncode == 1
    assert done.stderr == f"testbed: {file}:10: ValueError: mine\n"
    done = run("topo", file, "--", "h1")
    assert done.returncode == 2
    assert done.stderr.startswith(f"testbed: {file}:7: there are two nodes named 'h1'")
    assert done.stderr.count("\n") == 1


def test_topologies_of_mininets_own_by_name() -> None:
    done = run("topo", "linear,2", "--json")
    assert done.returncode == 0, done.stderr
    assert '"pings": 2' in done.stdout


# -- the way out -----------------------------------------------------------------------------------

_FETCH = """
import socket, sys
from mininet.net import Mininet
from mininet.node import OVSBridge
from mininet.topo import SingleSwitchTopo
net = Mininet(SingleSwitchTopo(1), switch=OVSBridge)
net.addNAT().configDefault()
net.start()
address = "('198.19.255.2', %s)" % sys.argv[1]
program = "import socket; print(socket.create_connection(%s, 5).recv(99).decode())" % address
print(net["h1"].pexec([sys.executable, "-c", program])[0].strip())
"""


def test_a_host_behind_nat_reaches_the_machine_by_the_uplink(tmp_path: Path) -> None:
    import socket
    import threading

    if reason := doctor.reason("uplink"):
        pytest.skip(reason)
    file = tmp_path / "fetch.py"
    file.write_text(_FETCH)

    def serve() -> None:
        connection, _address = server.accept()
        with connection:
            connection.sendall(b"from the machine")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        done = run("topo", "--uplink", file, "--", str(server.getsockname()[1]))
    assert done.stdout.strip() == "from the machine", done.stderr
    assert not _running("slirp4netns"), "the uplink outlived its sandbox"


def _running(program: str) -> list[str]:
    mine = str(os.getpid())
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path("/proc", entry, "cmdline").read_text().split("\0")
        except OSError:  # it has ended
            continue
        if Path(words[0]).name == program and entry != mine:
            found.append(entry)
    return found
