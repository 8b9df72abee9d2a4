"""Parameters of the use case: devices and their links, the machine, the video, the journey."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.errors import ParameterError
from testbed.run import Parameters, parameter
from usecases.vm_migration.journey import PHONE, TABLET

if TYPE_CHECKING:
    from testbed.guests.migration import MigrationOptions


@dataclass(frozen=True, kw_only=True)
class Wifi(Parameters):
    """The phone's WiFi: poor where the journey begins, better when the machine comes back."""

    bw: float = parameter(0.6, unit="Mb/s", help="rate, each way, where it is poor", minimum=0.2)
    better: float = parameter(8.0, unit="Mb/s", help="rate, where it is better", minimum=0.2)
    delay: float = parameter(20.0, unit="ms", help="one-way delay", minimum=0, maximum=1000)
    loss: float = parameter(0.0, unit="%", help="packets lost, each way", minimum=0, maximum=10)


@dataclass(frozen=True, kw_only=True)
class Lte(Parameters):
    """The tablet's LTE."""

    bw: float = parameter(8.0, unit="Mb/s", help="rate, each way", minimum=0.2)
    delay: float = parameter(25.0, unit="ms", help="one-way delay", minimum=0, maximum=1000)
    loss: float = parameter(0.0, unit="%", help="packets lost, each way", minimum=0, maximum=10)


@dataclass(frozen=True, kw_only=True)
class Peer(Parameters):
    """The link between the two devices, which memory travels over."""

    bw: float = parameter(100.0, unit="Mb/s", help="rate, each way", minimum=1, maximum=1000)
    delay: float = parameter(0.0, unit="ms", help="one-way delay", minimum=0, maximum=1000)


@dataclass(frozen=True, kw_only=True)
class Machine(Parameters):
    """The virtual machine that the player runs in, and how it moves."""

    memory: int = parameter(128, unit="MB", help="its memory", minimum=120, maximum=2048)
    method: str = parameter("pre-copy", help="of live migration", choices=("pre-copy", "post-copy"))
    phone_display: str = parameter("480x270", help="the phone's display, in pixels")
    tablet_display: str = parameter("640x400", help="the tablet's display, in pixels")
    downtime: float = parameter(
        0.35,
        unit="s",
        help="what pre-copy may stand still for at the end",
        minimum=0.01,
        maximum=10,
    )
    auto_converge: bool = parameter(
        False, help="slow a machine down that writes faster than memory can be sent"
    )
    cpu: float = parameter(
        80.0, unit="%", help="of one processor, that each device has", minimum=10, maximum=400
    )

    def displays(self) -> dict[str, tuple[int, int]]:
        """Width and height of each device's display; `ParameterError` for what is none."""
        given = {PHONE: self.phone_display, TABLET: self.tablet_display}
        return {device: _size(f"machine.{device}_display", text) for device, text in given.items()}

    def options(self) -> MigrationOptions:
        """How it is migrated."""
        from testbed.guests.migration import MigrationOptions

        return MigrationOptions(
            method="post-copy" if self.method == "post-copy" else "pre-copy",
            downtime_limit_s=self.downtime,
            auto_converge=self.auto_converge,
        )


def _size(key: str, text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    if found is None:
        raise ParameterError(f"{key} = {text!r}", remedy="write it like 480x270")
    return int(found[1]), int(found[2])


@dataclass(frozen=True, kw_only=True)
class Video(Parameters):
    """The live stream and its player."""

    ladder: str = parameter(
        "160x90:80k,320x180:250k,480x270:600k", help="its bitrates, WIDTHxHEIGHT:RATE"
    )
    pictures: int = parameter(12, help="a second", minimum=1, maximum=60)
    behind: float = parameter(
        6.0, unit="s", help="how far behind the live edge the player begins", minimum=2
    )
    patience: float = parameter(
        6.0, unit="s", help="without a byte, after which the player gives a connection up",
        minimum=1,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VmMigrationParameters(Parameters):
    """All of them."""

    scenario: str = parameter(
        "both", help="why the machine moves: a poor network, a loaded phone",
        choices=("network", "cpu", "both"),
    )  # fmt: skip
    once: bool = parameter(
        True, help="the other variants make the first move only, not the whole journey"
    )
    wifi: Wifi = Wifi()
    lte: Lte = Lte()
    peer: Peer = Peer()
    machine: Machine = Machine()
    video: Video = Video()
    tasks: int = parameter(
        8, help="that compete with the machine on the loaded phone", minimum=1, maximum=50
    )
    before: float = parameter(6.0, unit="s", help="watched before each move", minimum=1)
    after: float = parameter(8.0, unit="s", help="watched after each move", minimum=1)
