"""The Click language: text to a flat graph of elements and connections.

    text -> lexer -> parser -> syntax tree -> elaborate -> Graph

What the elements' arguments mean is theirs to know (`testbed.vnf.elements`).
"""

from testbed.vnf.click.elaborate import elaborate
from testbed.vnf.click.errors import ClickError, Place
from testbed.vnf.click.graph import Argument, Connection, Graph, GraphElement, Port
from testbed.vnf.click.parser import parse

__all__ = [
    "Argument",
    "ClickError",
    "Connection",
    "Graph",
    "GraphElement",
    "Place",
    "Port",
    "elaborate",
    "parse",
]
