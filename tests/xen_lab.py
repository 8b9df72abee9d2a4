"""A fake dom0 in a folder: an xl whose domains are processes with a terminal, and its store.

A domain (this file, run as a program) does what a guest's init does on Xen: one terminal for the
console, the agent and the reports.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import tty
from pathlib import Path

XL = f"""#!/bin/sh
here=${{0%/*}}
name=$(sed -n 's/^name = "\\(.*\\)"/\\1/p' "$2" 2>/dev/null)
case $1 in
create | restore)
    cp "$2" "$here/configuration"
    echo "$*" >>"$here/orders"
    if grep -q "memory = 4000" "$2"; then
        echo "Parsing config from $2"
        echo "libxl: error: libxl_create.c:662:libxl__domain_make: Domain 7:no memory for it" >&2
        exit 3
    fi
    if [ "$1" = restore ] && [ ! -e "$3" ]; then
        echo "Can't open restore file: No such file" >&2
        exit 1
    fi
    [ ! -e "$here/slow" ] || {{ echo $$ >"$here/slow.at"; sleep 600; }}
    echo 7 >"$here/number"
    [ ! -e "$here/stuck" ] || {{ echo $$ >"$here/stuck.at"; sleep 600; }}
    {sys.executable} {__file__} "$here" "$name" "$1" </dev/null >/dev/null 2>&1 &
    until [ -e "$here/tty" ]; do sleep 0.01; done ;;
domid | domname)
    cat "$here/number" ;;
vm-list)
    echo "UUID                                  ID    name"
    uuid=$(sed -n 's/^uuid = "\\(.*\\)"/\\1/p' "$here/configuration")
    [ ! -e "$here/number" ] || echo "$uuid  7    box" ;;
list)
    [ -e "$here/number" ] || exit 1
    printf 'Name ID Mem VCPUs State Time(s)\\n%-20s 7 128 2 -b---- 12.5\\n' box ;;
sched-credit2 | save | destroy)
    echo "$*" >>"$here/orders"
    [ "$1" = sched-credit2 ] || rm -f "$here/number" "$here/tty"
    [ "$1" = sched-credit2 ] || [ ! -e "$here/pid" ] || kill "$(cat "$here/pid")"
    [ "$1" != save ] || echo state >"$3" ;;
esac
"""
STORE = """#!/bin/sh
cat "${0%/*}/tty"
"""


def fake_dom0(folder: Path) -> None:
    """Make the programs of a dom0 in `folder`, which is to come first on the PATH."""
    for name, text in (("xl", XL), ("xenstore-read", STORE)):
        program = folder / name
        program.write_text(text)
        program.chmod(0o755)


def orders(folder: Path) -> list[str]:
    """What xl was told so far, without paths."""
    lines = (folder / "orders").read_text().splitlines()
    return [" ".join(word for word in line.split() if "/" not in word) for line in lines]


def _domain(folder: Path, name: str, how: str) -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    (folder / "pid").write_text(str(os.getpid()))
    (folder / "tty.new").write_text(os.ttyname(theirs))
    (folder / "tty.new").rename(folder / "tty")
    signal.signal(signal.SIGTERM, lambda *_arguments: sys.exit())
    log = folder / f"xl-{name}.log"
    log.write_text("Waiting for domain to die\nDomain 7 has been destroyed.\n")
    said = b"[    0.1] Linux\r\n0 0 3\nup\n" if how == "create" else b""
    os.write(ours, said)
    with open(ours, "rb", buffering=0) as terminal:
        while line := terminal.readline():
            word, number, *sizes = line.split()
            if word == b"do":
                script, data = b"".join(terminal.readline() for _ in range(int(sizes[0]))), b""
                script = script.removesuffix(b"\n")
            else:
                script, data = (terminal.read(int(size)) for size in sizes)
            if script == b"panic":
                log.write_text("Domain 7 has shut down, reason code 3 0x3\n")
                os.write(ours, b"[    9.9] Kernel panic - not syncing: asked for\r\n")
                os.close(9)  # the xl that watched it is gone, the domain stays
                signal.pause()
            if script.startswith(b"report "):
                os.write(ours, script + b"\n")
            done = subprocess.run(
                ["sh", "-c", script], input=data, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            os.write(ours, b"%s %d %d\n" % (number, done.returncode, len(done.stdout)))
            os.write(ours, done.stdout)


if __name__ == "__main__":
    _domain(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
