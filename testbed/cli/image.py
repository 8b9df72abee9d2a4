"""`testbed image`: what guests boot."""

from __future__ import annotations

import json

import click


@click.group()
def image() -> None:
    """Images for guests (virtual machines), made of the distribution's packages."""


@image.command()
@click.argument("name", default="micro")
@click.option("--json", "as_json", is_flag=True, help="Print the image's facts as JSON.")
def build(name: str, as_json: bool) -> None:
    """Build the image NAME into the cache; needs the network for packages not fetched before.

    Also finds out whether guests boot on KVM here, so that no experiment has to.
    """
    from testbed import guests
    from testbed.guests.qemu import accelerator

    built = guests.build(name)
    why_not = accelerator.why_not_kvm()
    facts = {
        "name": built.name,
        "kernel": built.release,
        "bytes": built.size,
        "folder": str(built.kernel.parent),
        "kvm": why_not or "yes",
    }
    carried = f"guests are translated: {why_not}" if why_not else "KVM carries guests"
    click.echo(json.dumps(facts) if as_json else f"{built.describe()}; {carried}")


commands = [image]
