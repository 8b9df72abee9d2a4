"""What a topology says of a guest, as text and numbers, made into a machine's hardware.

memory   "128M", "1G", or a number of MB
display  "1024x600", or (1024, 600)
on       "phone", or ("phone", "tablet")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import ParameterError
from testbed.guests.images import Image
from testbed.guests.images.recipes import recipe
from testbed.guests.machine import Machine

_NONE = Image("", Path(), Path(), "")
_MEMORY = re.compile(r"(\d+)\s*([MG])?(?:i?B)?", re.IGNORECASE)
_DISPLAY = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True)
class Hardware:
    """The hardware of a guest called `name`, before there is an image to boot."""

    name: str
    image: str
    memory_mb: int
    cpus: int
    cpu_limit: float | None
    display: tuple[int, int] | None

    @classmethod
    def of(cls, name: str, params: Mapping[str, Any]) -> Hardware:
        """From the parameters of a node; raises `ParameterError` for what cannot be meant."""
        found = cls(
            name=name,
            image=params.get("image", "micro"),
            memory_mb=_memory_mb(name, params.get("memory", "128M")),
            cpus=_number(name, "cpus", params.get("cpus", 1), int),
            cpu_limit=_number(name, "cpu_limit", params.get("cpu_limit"), float),
            display=_display(name, params.get("display")),
        )
        recipe(found.image)
        found.machine(_NONE, macs=())
        return found

    def machine(self, image: Image, *, macs: tuple[str, ...], accelerator: str = "tcg") -> Machine:
        """With an image in it, and network cards."""
        return Machine(
            image,
            memory_mb=self.memory_mb,
            macs=macs,
            name=self.name,
            accelerator=accelerator,
            cpus=self.cpus,
            cpu_limit=self.cpu_limit,
            display=self.display,
        )


def carriers(params: Mapping[str, Any]) -> tuple[str, ...]:
    """The nodes that a guest may run on, the first one first; none for one with links."""
    on = params.get("on") or ()
    return (str(on),) if isinstance(on, str) or not hasattr(on, "__iter__") else tuple(map(str, on))


def _memory_mb(name: str, given: Any) -> int:
    found = _MEMORY.fullmatch(str(given).strip())
    if found is None:
        raise ParameterError(f"guest {name}: memory {given!r}", remedy='write "128M" or "1G"')
    return int(found[1]) * (1024 if (found[2] or "").upper() == "G" else 1)


def _number(name: str, what: str, given: Any, kind: type[Any]) -> Any:
    try:
        return None if given is None else kind(given)
    except (TypeError, ValueError):
        raise ParameterError(f"guest {name}: {what} {given!r}", remedy="give a number") from None


def _display(name: str, given: Any) -> tuple[int, int] | None:
    if given is None:
        return None
    text = given if isinstance(given, str) else "x".join(map(str, given))
    found = _DISPLAY.fullmatch(text)
    if found is None:
        raise ParameterError(f"guest {name}: display {given!r}", remedy='write "1024x600"')
    return int(found[1]), int(found[2])
