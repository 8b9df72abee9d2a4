"""Trusted resource pooling (D3.1 2.3): pool every path, keep sensitive bytes on trusted ones.

trust, policy, manager     the tool: trust table, decisions, connection manager
phone, server              the programs in the nodes (apps, live, channel)
sniffer, capture, streams  what the attacker's capture holds
leaks, attacker            the ground truth in bytes; what an attacker makes of it
usecase, claims, figures   the experiment
"""

from usecases.trusted_pooling.usecase import TrustedPooling

__all__ = ["TrustedPooling"]
