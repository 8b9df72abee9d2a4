"""Live connections redirected, light middleboxes moved (D3.1 3.1), after its figure 3.1.

usecase, parameters        the use case as the testbed sees it; one module for each variant
redirect                   live connections over another wide-area path
transfers, arrived         the connections, and what their receivers saw
paths, reroute             what links carried; what an operator can do inside its domain
"""

from usecases.clickos_migration.usecase import ClickosMigration

__all__ = ["ClickosMigration"]
