"""`testbed vm`: the testbed on another machine, a virtual one or any host over SSH."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.cli._terminal import print_json
from testbed.errors import ParameterError, TestbedError, UserError

if TYPE_CHECKING:
    from testbed.remote.address import Address
    from testbed.remote.machines import Machine
    from testbed.remote.progress import Progress

_name = click.option(
    "--name", default="", metavar="NAME", help="Which machine (the only one, or default)."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
_WORDS = {"ignore_unknown_options": True, "allow_interspersed_args": False}
_UNITS = {"": 1, "m": 1, "mb": 1, "g": 1024, "gb": 1024}


@click.group()
def vm() -> None:
    """The testbed on another machine: in QEMU, in Vagrant's, or on any host over SSH.

    `up` makes it ready, `run` runs there what `testbed` runs here and brings the results back.
    """


# -- up and down ---------------------------------------------------------------------------------


def _megabytes(_context: click.Context, _option: click.Parameter, text: str) -> int:
    match = re.fullmatch(r"(\d+)([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise ParameterError(f"--memory {text}", remedy="give it as 2048M or 2G")
    return int(match[1]) * _UNITS[match[2]]


@vm.command()
@click.option("--qemu", "asked", flag_value="qemu", help="A virtual machine of the image full.")
@click.option("--vagrant", "asked", flag_value="vagrant", help="By the project's Vagrantfile.")
@click.option("--host", default="", metavar="USER@HOST[:PORT]", help="Any machine with SSH.")
@_name
@click.option("--memory", "memory_mb", default="2G", show_default=True, metavar="SIZE",
              callback=_megabytes, help="Of a machine in QEMU.")  # fmt: skip
@click.option("--cpus", default=2, show_default=True, metavar="N", help="Of a machine in QEMU.")
@click.option("--internet", is_flag=True, help="Let a machine in QEMU reach the network.")
@click.option("--key", default="", metavar="FILE", help="Private key for --host.")
@click.option("--fingerprint", default="", metavar="SHA256:...", help="Host key of --host.")
@click.option("--offline", is_flag=True, help="Python packages come from here in any case.")
@_json
def up(
    asked: str | None, host: str, name: str, fingerprint: str, offline: bool, as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Bring a machine up, copy the project there, set it up.

    Without --qemu, --vagrant or --host: Vagrant where it is installed, else QEMU.
    """
    from testbed.cli._remote_progress import showing
    from testbed.remote import project, setup
    from testbed.remote.connection import Connection
    from testbed.remote.machines import USUAL
    from testbed.remote.providers import provider

    if asked and host:
        raise UserError(f"--{asked} and --host", remedy="give one of them")
    machine = _wanted(name or USUAL, "host" if host else asked or "", {**given, "host": host})
    with machine.locked(), showing(machine.name) as progress:
        address = _brought_up(machine, progress)
        with Connection.open(
            address, machine.known_hosts, name=machine.name, vouched=fingerprint,
            trust_first=provider(machine).ours,
        ) as connection:  # fmt: skip
            folder = setup.ready(
                connection, machine.about, project.ROOT, offline=offline, progress=progress
            )
    if as_json:
        print_json({**_facts(machine), "folder": folder})
    else:
        which = "" if machine.name == USUAL else f"--name {machine.name} "
        click.echo(f"{machine.name} is ready ({machine.provider}, {machine.address}): "
                   f"testbed vm run {which}USE-CASE")  # fmt: skip


def _wanted(name: str, kind: str, given: dict[str, Any]) -> Machine:
    """The machine of that name, made of what was asked for if there is none."""
    from testbed.remote import machines
    from testbed.remote.providers import KINDS, choose

    found = machines.known(name)
    if found is None:
        kind, why = choose(kind)
        if why:
            click.echo(f"{name}: {kind}, as {why}", err=True)
        return machines.Machine(name, kind, KINDS[kind].options(given))
    options = KINDS["host"].options(given) if kind == "host" else found.options
    if kind not in ("", found.provider) or options != found.options:
        raise UserError(
            f"there is a machine {name} already ({found.provider}, {found.address})",
            remedy=f"give another --name, or first testbed vm down --destroy --name {name}",
        )
    return found


def _brought_up(machine: Machine, progress: Progress) -> Address:
    """Its address, kept; of a machine that did not come up for the first time, nothing is kept."""
    from testbed.remote.providers import provider

    try:
        machine.address = provider(machine).up(progress)
    except BaseException:
        if machine.address is None:
            machine.forget()
        raise
    machine.save()
    return machine.address


@vm.command()
@_name
@click.option("--destroy", is_flag=True, help="Also throw away its disk and forget it.")
def down(name: str, destroy: bool) -> None:
    """Bring a machine down.  A host that is not ours to end is left alone."""
    from testbed.cli._remote_progress import showing
    from testbed.remote import machines
    from testbed.remote.providers import provider

    machine = machines.find(name)
    with machine.locked(), showing(machine.name) as progress:
        brought = provider(machine)
        brought.down(progress, destroy=destroy)
        if destroy:
            machine.forget()
        elif brought.ours:
            machine.address = None
            machine.save()


# -- what there is -------------------------------------------------------------------------------


def _facts(machine: Machine) -> dict[str, Any]:
    from testbed.remote.providers import provider

    try:
        state = provider(machine).state()
    except TestbedError as error:  # one that cannot be asked must not hide the others
        state = f"not known: {error}"
    return {**machine.about, "state": state, "options": machine.options}


@vm.command("list")
@_json
def list_command(as_json: bool) -> None:
    """All machines, and whether they run."""
    from testbed.remote import machines

    _print([_facts(machine) for machine in machines.every()], as_json)


@vm.command()
@_name
@_json
def status(name: str, as_json: bool) -> None:
    """One machine, and whether it runs."""
    from testbed.remote import machines

    facts = _facts(machines.find(name))
    if as_json:
        print_json(facts)
    else:
        _print([facts], as_json)


def _print(facts: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    for each in facts:
        words = (each["name"], each["provider"], each["state"], each["address"])
        click.echo("  ".join(word for word in words if word))


# -- run and ssh ---------------------------------------------------------------------------------


@vm.command(context_settings=_WORDS)
@_name
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
def run(name: str, words: tuple[str, ...]) -> int:
    """Run there what `testbed WORDS` runs here, and bring what it leaves in results/ back.

    A use case's name stands for `run` and that name: `testbed vm run trusted_pooling --quick`.
    Other commands go by theirs: `testbed vm run doctor`, `testbed vm run bench links --quick`.

    What has changed here is copied first.  Ctrl-C goes to the command there.  The exit status is
    the command's.
    """
    from testbed.cli._remote_progress import showing
    from testbed.remote import machines, project, setup, transfer
    from testbed.remote.command import run as run_there

    argv = command(words)
    place, results = places(argv, Path.cwd(), project.ROOT)
    machine = machines.find(name)
    with machine.connect() as connection:
        with showing(machine.name) as progress:
            folder = setup.ready(connection, machine.about, project.ROOT, progress=progress)
        ended = run_there(
            connection, [f"{folder}/.venv/bin/testbed", *argv], folder=f"{folder}/{place}"
        )
        with showing(machine.name) as progress:
            progress.step("bringing results back")
            into = project.ROOT if place else Path.cwd()
            runs = transfer.bring(connection, folder, results, into, progress=progress)
    for each in runs:
        click.echo(f"{machine.name}: {each} is here", err=True)
    return ended


def command(words: tuple[str, ...]) -> list[str]:
    """The words after `testbed` there."""
    from testbed.cli.main import COMMANDS

    given = list(words[1:] if words[0] == "testbed" else words)
    first = next(iter(given), "")
    if first == "vm":
        raise UserError("testbed vm run vm", remedy="machines are brought up from here only")
    return given if first in COMMANDS or first.startswith("-") else ["run", *given]


def places(argv: list[str], here: Path, root: Path) -> tuple[str, list[str]]:
    """The folder below the project in which to run, and below it those whose files are results.

    Paths among the words then mean the same there as here.
    """
    place = str(here.relative_to(root)) if here.is_relative_to(root) else ""
    place = "" if place == "." else place
    given = [argv[at + 1] for at, word in enumerate(argv[:-1]) if word == "--results"]
    given += [word.partition("=")[2] for word in argv if word.startswith("--results=")]
    for path in given:
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise UserError(f"--results {path}", remedy="on another machine, give a path below")
    return place, [str(Path(place, path)) for path in given or ["results"]]


@vm.command(context_settings=_WORDS)
@_name
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str, words: tuple[str, ...]) -> int:
    """A shell there, or `ssh -- COMMAND`.  What is started there ends with it."""
    from testbed.remote import machines
    from testbed.remote.command import Streams
    from testbed.remote.command import run as run_there

    argv = ["sh", "-c", " ".join(words)] if words else []
    machine = machines.find(name)
    with machine.connect() as connection:
        return run_there(connection, argv, streams=Streams(reads=True))


commands = [vm]
