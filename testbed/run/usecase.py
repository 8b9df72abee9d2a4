"""What a use case is: what is tried, in which variants, what is claimed of it and drawn from it.

A use case subclasses `UseCase`, names its `Parameters`, says how the network is wired
(`topology`) and what happens on it (`run`), and lists `claims` and `figures`, both made from
the records alone.  How it is started, repeated, recorded and reported is not its concern.

    class Ping(UseCase[PingParameters]):
        name = "ping"
        Parameters = PingParameters
        variants = {"near": "two hosts on a wire", "far": "the same, 30 ms apart"}

        def topology(self, params): ...
        async def run(self, net, params, record): ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from testbed.errors import ExperimentError
from testbed.run import parameters
from testbed.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from testbed.report.results import Results
    from testbed.run.recorder import Recorder

P = TypeVar("P", bound=parameters.Parameters)


class MissingData(ExperimentError):
    """The records lack what a claim or a figure needs: it is not judged, or not drawn."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of one variant: repeat counts from 0; `engine` is auto, fabric or netem.

    The same repeat of every variant has the same seed, so that variants meet the same losses
    and the same workload and can be compared pair by pair.
    """

    variant: str
    repeat: int
    seed: int
    engine: str = "auto"

    @property
    def label(self) -> str:
        """The name of this trial's files: VARIANT-REPEAT."""
        return f"{self.variant}-{self.repeat}"


@dataclass(frozen=True)
class Claim:
    """A statement that can be measured, where it is made (D3.1 section), and how it is judged.

    `judge` may raise `MissingData` (all of `Results`' accessors do) where records are lacking.
    `variants` are those it is about (none named: all): a run that tries none of them is not
    asked about it.
    """

    id: str
    statement: str
    source: str
    judge: Callable[[Results], Verdict]
    variants: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """One figure: drawn on an empty matplotlib figure of the house style from records alone.

    `size` is the width in a paper: one "column" (3.4 in) or "wide" (7 in).  `height_in` replaces
    the usual height.  `draw` may raise `MissingData`: the figure is then said to be missing, and
    why.  `variants` as in `Claim`.
    """

    id: str
    title: str
    caption: str
    draw: Callable[[Results, Canvas], None]
    size: Literal["column", "wide"] = "column"
    height_in: float | None = None
    variants: tuple[str, ...] = ()


class UseCase(ABC, Generic[P]):
    """Base of every use case; see the module's docstring."""

    name: ClassVar[str]
    """Lower case with underscores; the command line takes hyphens as well."""
    section: ClassVar[str] = ""
    """Where the deliverable describes it ("D3.1 2.3")."""
    title: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    Parameters: type[P]
    variants: ClassVar[Mapping[str, str]]
    """Name -> one line on it, baseline first; the order fixes colours and legends."""
    quick: ClassVar[Mapping[str, Any]] = {}
    """What `--quick` changes (dotted keys)."""
    repeats: ClassVar[int] = 5
    quick_repeats: ClassVar[int] = 2
    listed: ClassVar[bool] = True
    """False for one that a command of its own runs: `testbed list` and `reproduce` pass it by."""
    trial_limit_s: ClassVar[float] = 600.0
    """A trial that takes longer is ended and counts as failed."""
    claims: ClassVar[Sequence[Claim]] = ()
    figures: ClassVar[Sequence[Figure]] = ()

    @abstractmethod
    def topology(self, params: P) -> Any:
        """The Mininet `Topo` of one trial; raises `TopologyError` for what cannot be built."""

    def network(self, params: P, topo: Any, trial: Trial) -> Any:
        """The network to run on: a context manager, `Network` unless a use case needs another."""
        from testbed.network import Network

        return Network(topo, seed=trial.seed, engine=trial.engine)

    @abstractmethod
    async def run(self, net: Any, params: P, record: Recorder) -> None:
        """Drive the started network `net` through one trial; `record.trial` says which."""

    def explain(self, params: P) -> Sequence[tuple[str, str]]:
        """More (heading, text) for `testbed show`, made from the parameters."""
        return ()
