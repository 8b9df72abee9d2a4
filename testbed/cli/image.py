"""`testbed image`: what guests boot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from testbed.cli._terminal import out, print_json

if TYPE_CHECKING:
    from testbed.guests.images import Image

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
_KERNEL = click.option(
    "--kernel", default="", metavar="VERSION",
    help="Start of a kernel's version (6.12) instead of the distribution's choice.",
)  # fmt: skip


@click.group()
def image() -> None:
    """Images for guests (virtual machines), made of the distribution's packages."""


@image.command()
@click.argument("name", default="micro")
@_KERNEL
@_JSON
def build(name: str, kernel: str, as_json: bool) -> None:
    """Build the image NAME into the cache; needs the network for packages not fetched before.

    Also finds out whether guests boot on KVM here, so that no experiment has to.
    """
    from testbed.cli._steps import steps
    from testbed.guests import images
    from testbed.guests.images import store

    with steps(f"image {name}") as progress:
        built = images.build(name, kernel, progress)
    carried = _carried()
    if as_json:
        return print_json({**_facts(name, built), "carried": carried})
    click.echo(f"{built.describe()}; guests are carried by {carried}")
    if old := store.stale():
        click.echo(f"{len(old)} folders of old images; testbed image clean", err=True)
    return None


@image.command("list")
@_JSON
def list_images(as_json: bool) -> None:
    """List the images there are, built or not."""
    from testbed.guests.images import RECIPES

    facts = [_facts(name, _built(name)) for name in RECIPES]
    if as_json:
        return print_json(facts)
    from rich.table import Table

    table = Table("image", "kernel", "MB", "memory", "what it is for", box=None, pad_edge=False)
    for each in facts:
        size = f"{each['bytes'] / 1e6:.0f}" if each["built"] else ""
        linux = each["kernel"] if each["built"] else "[yellow]not built"
        table.add_row(each["name"], linux, size, f"{each['least_mb']} MB", each["purpose"])
    return out().print(table)


@image.command()
@click.argument("name")
@_KERNEL
@_JSON
def show(name: str, kernel: str, as_json: bool) -> None:
    """Show what the image NAME is made of: packages, their versions, size, hash.

    Of an image that is not built, what it would be made of now.
    """
    from testbed.guests import images
    from testbed.guests.images.building import plan

    built = _built(name, kernel)
    packages = built.packages if built else plan(name, kernel).packages
    facts = _facts(name, built)
    facts["build"] = images.how_to_build(name, kernel)
    facts["packages"] = {package.name: package.version for package in packages}
    if as_json:
        return print_json(facts)
    console = out()
    for key, value in facts.items():
        if key != "packages":
            console.print(f"[bold]{key:<9}[/] {value}", soft_wrap=True)
    console.print(f"[bold]packages[/] ({len(packages)})")
    for package in packages:
        console.print(f"  {package.name} [dim]{package.version}", soft_wrap=True)
    return None


@image.command()
@click.option("--packages", is_flag=True, help="Also unpacked packages; building fetches them.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def clean(packages: bool, dry_run: bool) -> None:
    """Remove images that no recipe of today makes, and those that newer ones replaced.

    Machines of `testbed vm` that were made of one have to be made anew.
    """
    from testbed.guests.images import store
    from testbed.guests.images.packages import unpacked_ones

    folders = [*store.stale(), *(unpacked_ones() if packages else [])]
    for folder in folders:
        click.echo(folder)
    if not dry_run:
        freed = store.remove(folders)
        click.echo(f"{len(folders)} folders removed, {freed / 1e6:.0f} MB")


def _carried() -> str:
    """What carries guests here, which is found out by booting one."""
    from testbed.errors import FeatureError
    from testbed.guests.qemu import accelerator

    try:
        why_not = accelerator.why_not_kvm()
    except FeatureError as error:  # there is no image to try it with
        return f"what is not known yet: {error.message}"
    return f"translation (TCG): {why_not}" if why_not else "KVM"


def _built(name: str, kernel: str = "") -> Image | None:
    from testbed.guests.images import store
    from testbed.guests.images.recipes import recipe

    return store.newest(name, recipe(name), kernel)


def _facts(name: str, built: Image | None) -> dict[str, Any]:
    """What is known of an image; `build` is the command that makes it."""
    from testbed.guests.images import how_to_build
    from testbed.guests.images.recipes import recipe

    facts = {
        "name": name,
        "purpose": recipe(name).purpose,
        "least_mb": recipe(name).least_mb,
        "built": built is not None,
        "build": how_to_build(name),
    }
    if built is None:
        return facts
    return {
        **facts,
        "kernel": built.release,
        "bytes": built.size,
        "hash": built.folder.name.rpartition("-")[2],
        "folder": str(built.folder),
    }


commands = [image]
