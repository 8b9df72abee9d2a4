"""Live connections redirected, light middleboxes moved (D3.1 3.1), after its figure 3.1.

usecase, parameters        the use case as the testbed sees it; one module for each variant
redirect, chain            live connections over another path; through more and more middleboxes
redirecting, reroute       the operator's tool; what it can do without, inside its domain
transfers, arrived         the connections, and what their receivers saw
paths, rtt                 what links carried, and how long a round trip took
*_claims, *_report, *_figures, map_figure, stacked    what is made of the records
"""

from usecases.clickos_migration.usecase import ClickosMigration

__all__ = ["ClickosMigration"]
