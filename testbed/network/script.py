"""Programs written for Mininet, run unchanged with its names bound to this engine."""

from __future__ import annotations

import ast
import importlib
import os
import runpy
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from testbed.errors import ExperimentError, TestbedError, TopologyError
from testbed.network import names
from testbed.network.controller import STAND_INS
from testbed.network.load import read, where

_STAND_INS = {
    # The reference controller is not packaged any more; its descendant takes its place.
    "controller": """
mkdir -p /run/openvswitch
for word; do
    shift
    [ "$word" = ptcp: ] && word=ptcp:6633
    set -- "$@" "$word"
done
exec ovs-testcontroller -O OpenFlow10 "$@"
""",
    # As Debian's package "vlan" has it.
    "vconfig": """
case $1 in
add) exec ip link add link "$2" name "$2.$3" type vlan id "$3" ;;
rem) exec ip link delete "$2" ;;
esac
""",
    # Open vSwitch starts when it is first asked for; its bridges are in userspace.
    "ovs-vsctl": """
[ -S /run/openvswitch/db.sock ] ||
    {python} -c 'from testbed.network.ovs import OpenVSwitch; OpenVSwitch.join()' || exit 1
made= next= datapath=
for word; do
    [ -z "$next" ] || {{ case $word in -*) ;; *) made="$made $word" next= ;; esac; }}
    case $word in add-br) next=yes ;; *datapath_type=*) datapath=given ;; esac
done
[ -n "$datapath" ] || for bridge in $made; do
    set -- "$@" -- set bridge "$bridge" datapath_type=netdev
done
exec {vsctl} "$@"
""",
}


def is_script(path: Path) -> bool:
    """Does the file build its network itself?

    It does if it defines no topology (`topos`, a class whose base is named like one) at its top
    level, and does more there than define things.
    """
    try:
        tree = ast.parse(read(path), str(path))
    except SyntaxError as error:
        raise TopologyError(f"{path}:{error.lineno}: SyntaxError: {error.msg}") from error
    return not any(map(_is_topology, tree.body)) and any(map(_acts, tree.body))


def _is_topology(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.ClassDef):
        return any(ast.unparse(base).endswith(("Topo", "Topology")) for base in statement.bases)
    if isinstance(statement, ast.Assign):
        return any(isinstance(t, ast.Name) and t.id == "topos" for t in statement.targets)
    return isinstance(statement, ast.ImportFrom) and any(
        (alias.asname or alias.name) == "topos" for alias in statement.names
    )


def _acts(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.If):
        return "__name__" in ast.unparse(statement.test)
    calls = isinstance(statement, (ast.Expr, ast.Assign)) and isinstance(statement.value, ast.Call)
    return calls or isinstance(statement, (ast.With, ast.For, ast.Try))


def run(path: Path, arguments: Sequence[str] = ()) -> None:
    """Run a Mininet script as the main program; what fails in it is said with its line."""
    read(path)
    names.bind()
    _provide_programs()
    sys.argv = [str(path), *arguments]
    folder = path.parent.absolute()
    sys.path.insert(0, str(folder))
    if folder.parts[-2:] == ("mininet", "examples"):  # they import each other by that name
        importlib.import_module("mininet.examples").__path__.insert(0, str(folder))
    try:
        runpy.run_path(str(path), run_name="__main__")
    except TestbedError as error:
        if not hasattr(error, "place"):  # the file and line it names by itself
            error.args = (f"{path}{where(error, path)}: {error}",)
        raise
    except KeyboardInterrupt:
        raise
    except Exception as error:
        text = f"{path}{where(error, path)}: {type(error).__name__}: {error}"
        raise (TopologyError if isinstance(error, SyntaxError) else ExperimentError)(
            text
        ) from error


def _provide_programs() -> None:
    STAND_INS.mkdir(exist_ok=True)
    vsctl = shutil.which("ovs-vsctl")
    for name, script in _STAND_INS.items():
        if bool(shutil.which(name)) != (name == "ovs-vsctl"):  # that one is wrapped
            continue
        target = STAND_INS / name
        target.write_text("#!/bin/sh\n" + script.format(python=sys.executable, vsctl=vsctl))
        target.chmod(0o755)
    os.environ["PATH"] = f"{STAND_INS}{os.pathsep}{os.environ['PATH']}"
