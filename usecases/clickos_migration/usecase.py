"""The use case as the testbed sees it: each variant is a module that this one hands over to.

A variant's module has `ABOUT` (one line), `QUICK` (what --quick changes), `CLAIMS`, `FIGURES` and
`async run(net, params, record)`.
"""

from __future__ import annotations

from typing import Any

from testbed.run import Recorder, UseCase
from usecases.clickos_migration import burst, chain, migrate, redirect
from usecases.clickos_migration.parameters import ClickosMigrationParameters

PARTS: dict[str, Any] = {"redirect": redirect, "chain": chain, "migrate": migrate, "burst": burst}


class ClickosMigration(UseCase[ClickosMigrationParameters]):
    """See the package's docstring."""

    name = "clickos_migration"
    section = "D3.1 3.1"
    title = "Connection redirection and middlebox migration"
    summary = (
        "An operator's middlebox moves live Multipath TCP connections over another wide-area path "
        "and through other middleboxes; neither end is changed."
    )
    Parameters = ClickosMigrationParameters
    variants = {name: part.ABOUT for name, part in PARTS.items()}  # noqa: RUF012 - a class variable
    quick = {  # noqa: RUF012
        key: value for part in PARTS.values() for key, value in part.QUICK.items()
    }
    quick_repeats = 1
    claims = tuple(claim for part in PARTS.values() for claim in part.CLAIMS)
    figures = tuple(figure for part in PARTS.values() for figure in part.FIGURES)

    def topology(self, params: ClickosMigrationParameters) -> Any:
        """Figure 3.1 with as many clients and middleboxes as the largest variant needs."""
        clients = max(params.redirect.clients, params.chain.clients, params.burst.clients)
        return params.paths.topology(clients=clients)

    async def run(self, net: Any, params: ClickosMigrationParameters, record: Recorder) -> None:
        """One trial of one variant."""
        await PARTS[record.trial.variant].run(net, params, record)
