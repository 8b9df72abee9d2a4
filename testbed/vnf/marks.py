"""How a function uses the bits of packet marks and connection marks.

A packet's mark lives from the graph to the output device; a connection's mark is part of the
state that moves with a function, so its layout is the same in every function.
"""

from __future__ import annotations

# packet mark
DEVICE, GATEWAY, PAINT, CLASS, RESUME = 0x0000000F, 0x000000F0, 0x0000FF00, 0x000F0000, 0xFF000000
# connection mark
LABEL, MAPPING, OWN = 0x000000FF, 0x0000FF00, 0x00010000

FEW = 3  # comparisons in a row that cost a packet less than looking into a map


def shifted(number: int, field: int) -> int:
    """`number` in the bits of `field`."""
    return number * (field & -field)


def most(field: int) -> int:
    """The largest number that fits into `field`."""
    return field // (field & -field)


def set_packet(number: int, field: int) -> str:
    """The statement that sets a field of the packet mark that has been zero."""
    return f"meta mark set meta mark or {shifted(number, field):#x}"


def replace_packet(number: int, field: int) -> str:
    """The statement that sets a field of the packet mark whatever it was."""
    keep, value = 0xFFFFFFFF & ~field, shifted(number, field)
    if not value:
        return f"meta mark set meta mark and {keep:#x}"
    return f"meta mark set meta mark and {keep:#x} meta mark set meta mark or {value:#x}"


def set_connection(number: int, field: int) -> str:
    """The statement that sets a field of the connection mark that has been zero."""
    return f"ct mark set ct mark or {shifted(number, field):#x}"


def packet_is(number: int, field: int) -> str:
    """The match on a field of the packet mark."""
    return f"meta mark & {field:#x} == {shifted(number, field):#x}"


def connection_is(number: int, field: int) -> str:
    """The match on a field of the connection mark."""
    return f"ct mark & {field:#x} == {shifted(number, field):#x}"


def by_packet(field: int, verdicts: dict[int, str]) -> list[str]:
    """Rules with a verdict for each number in a field of the packet mark."""
    return _by("meta mark", field, verdicts)


def by_connection(field: int, verdicts: dict[int, str]) -> list[str]:
    """Rules with a verdict for each number in a field of the connection mark."""
    return _by("ct mark", field, verdicts)


def _by(mark: str, field: int, verdicts: dict[int, str]) -> list[str]:
    cases = [(f"{shifted(n, field):#x}", verdict) for n, verdict in verdicts.items()]
    if len(cases) <= FEW:
        return [f"{mark} & {field:#x} == {number} {verdict}" for number, verdict in cases]
    listed = ", ".join(f"{number} : {verdict}" for number, verdict in cases)
    return [f"{mark} & {field:#x} vmap {{ {listed} }}"]
