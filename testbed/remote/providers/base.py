"""What a provider is: who brings a machine up and down, and says how it is reached."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from testbed.remote.address import Address
from testbed.remote.machines import Machine
from testbed.remote.progress import Progress

RUNNING, STOPPED = "running", "stopped"


class Provider(ABC):
    """The provider of one machine, which keeps what it needs in the machine's folder."""

    kind: ClassVar[str]
    # Is it made and ended by us?  Then also the first key that its SSH server shows is right.
    ours: ClassVar[bool] = False

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    @classmethod
    @abstractmethod
    def missing(cls) -> str:
        """Why it cannot be used here, with the way to change that; "" where it can."""

    @classmethod
    def options(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The options it takes, out of those that the command line has."""
        return {}

    @abstractmethod
    def up(self, progress: Progress) -> Address:
        """Bring it up unless it is; how it is reached once its SSH server answers."""

    @abstractmethod
    def state(self) -> str:
        """RUNNING, STOPPED, or what else there is to say."""

    @abstractmethod
    def down(self, progress: Progress, *, destroy: bool) -> None:
        """Bring it down, unless it is; with `destroy` also throw its disk away."""
