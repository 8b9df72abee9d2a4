"""Live connections redirected, light middleboxes moved (D3.1 3.1), after its figure 3.1.

usecase, parameters        the use case as the testbed sees it; one module for each variant
redirect, chain            live connections over another path; through more and more middleboxes
redirecting, reroute       the operator's tool; what it can do without, inside its domain
migrate, movers, wide      a function moves: with its state, without, in a machine, by redirection
functions, steering        that function; which data centre clients' traffic is led through
burst, operator, rental    a flash crowd: the operator's eyes and hands, and what it rents
orchestrator, prices       what it decides, and by which prices; no I/O
tunnel, ratio              traffic compressed between the operators; how well it would be
transfers, arrived, crowds the connections, and what their receivers saw
paths, rtt, tally          what links carried, how long a round trip took, what was lost
wiring                     who faces whom in the topology
*_claims, *_report, *_figures, map_figure, stacked    what is made of the records
"""

from usecases.clickos_migration.usecase import ClickosMigration

__all__ = ["ClickosMigration"]
