"""Run a use case: every variant, every repeat, each trial in a sandbox of its own.

Everything a user can get wrong is checked before anything starts (`plan`).  From then on the
bundle is kept whatever happens, and says what did: a trial that fails is recorded and the others
go on; a full disk, Ctrl-C or a row of failures ends the run.  Repeats are interleaved (first
repeat of every variant, then the second, ...), so that a machine that slows down does so for all
variants alike.

Verdicts and figures are `testbed.report`'s; what the terminal shows is the command line's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from testbed.errors import FeatureError, ParameterError, TestbedError, UserError
from testbed.links import kernel_engine
from testbed.observe.settings import NOT_OBSERVED, Settings
from testbed.run import provenance
from testbed.run.bundle import COMPLETE, Bundle
from testbed.run.certificate import summarise
from testbed.run.parameters import nearest
from testbed.run.recorder import DiskFullError
from testbed.run.trial_process import Observer, TrialProcess
from testbed.run.usecase import Trial, UseCase
from testbed.sandbox import call

ENGINES = ("auto", "fabric", "netem")
_ROW_OF_FAILURES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run; made by `plan`, which checks it."""

    use_case: UseCase[Any]
    params: Any
    variants: tuple[str, ...]
    repeats: int
    seed: int
    engine: str
    quick: bool
    results: Path
    folders: tuple[str, ...] = ()
    observe: Settings = NOT_OBSERVED

    def trials(self) -> list[Trial]:
        """All trials in the order they are run."""
        return [
            Trial(variant=variant, repeat=repeat, seed=trial_seed(self.seed, repeat),
                  engine=self.engine)
            for repeat in range(self.repeats)
            for variant in self.variants
        ]  # fmt: skip


def trial_seed(seed: int, repeat: int) -> int:
    """The seed of one repeat: unlike any other run's, the same for all variants."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{repeat}".encode()).digest()[:4]) >> 1


def plan(
    use_case: UseCase[Any],
    *,
    changes: Mapping[str, Any] | None = None,
    variants: Sequence[str] = (),
    repeats: int | None = None,
    seed: int = 1,
    engine: str = "auto",
    quick: bool = False,
    results: Path = Path("results"),
    folders: tuple[str, ...] = (),
    observe: Settings = NOT_OBSERVED,
) -> Plan:
    """Check what is asked for, sandbox and topology included.

    Raises `ParameterError`, `TopologyError`, `PrivilegeError`: one line each, before anything
    has been started or written.
    """
    params = use_case.Parameters().changed({**(use_case.quick if quick else {}), **(changes or {})})
    chosen = tuple(dict.fromkeys(_variant(use_case, name) for name in variants))
    count = repeats if repeats is not None else _usual_repeats(use_case, quick)
    if count < 1:
        raise ParameterError(f"--repeat {count} is not allowed", remedy="repeat at least once")
    _check_engine(engine)
    topo = use_case.topology(params)
    _check_topology(topo)
    observe.check(topo)
    _check_results(results)
    return Plan(
        use_case=use_case, params=params, variants=chosen or tuple(use_case.variants),
        repeats=count, seed=seed, engine=engine, quick=quick, results=results, folders=folders,
        observe=observe,
    )  # fmt: skip


def _check_engine(engine: str) -> None:
    if engine not in ENGINES:
        raise ParameterError(f"there is no engine {engine!r}", remedy=nearest(engine, ENGINES))
    lacks = kernel_engine.missing(netem=True, codel=False) if engine == "netem" else ""
    if lacks:
        raise FeatureError(lacks, remedy="use a kernel that has it, or --engine fabric")


def _check_topology(topo: Any) -> None:
    """Refuse now what no trial could build (a use case may have a network of another kind)."""
    from mininet.topo import Topo

    if isinstance(topo, Topo):
        from testbed.network.validate import refuse_bad

        refuse_bad(topo)


def _check_results(results: Path) -> None:
    """A sandbox can be had, and what is written there from inside does not vanish with it."""
    path = str(results.absolute())
    if call(_place, path) != _place(path):
        raise UserError(
            f"{results} is in a folder that every sandbox has for its own (/run, /dev/shm, ...)",
            remedy="give another --results DIR",
        )


def _place(path: str) -> tuple[str, int, int]:
    """The part of `path` that exists, and which folder that is."""
    here = Path(path)
    while not here.exists():
        here = here.parent
    found = here.stat()
    return str(here), found.st_dev, found.st_ino


def _usual_repeats(use_case: UseCase[Any], quick: bool) -> int:
    return use_case.quick_repeats if quick else use_case.repeats


def _variant(use_case: UseCase[Any], name: str) -> str:
    for known in use_case.variants:
        if known.replace("-", "_") == name.replace("-", "_"):
            return known
    raise ParameterError(
        f"{use_case.name} has no variant {name!r}", remedy=nearest(name, use_case.variants)
    )


def execute(planned: Plan, observer: Observer | None = None) -> Bundle:
    """Run all trials and return the bundle, complete or not (`Bundle.status` says).

    Raises only where no bundle could be begun, or its run.json no longer be written.
    """
    bundle = Bundle.create(planned.results, planned.use_case.name, _opening(planned))
    return _Run(planned, bundle, observer or Observer()).execute()


def _opening(planned: Plan) -> dict[str, Any]:
    return {
        "title": planned.use_case.title,
        "section": planned.use_case.section,
        "status": "incomplete: ended before the first trial",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": provenance.command_line(),
        "parameters": planned.params.as_dict(),
        "units": {each.key: each.unit for each in planned.params.declarations()},
        "variants": {name: planned.use_case.variants[name] for name in planned.variants},
        "repeats": planned.repeats,
        "seed": planned.seed,
        "engine": planned.engine,
        "quick": planned.quick,
        "observe": planned.observe.as_dict(),
        "trials": [],
        "engines": [],
        "settings": {},
        "machine": provenance.machine(),
        "packages": provenance.packages(),
        "revision": provenance.revision(),
        "verdicts": [],
    }


class _Ended(Exception):
    """The run is over before its last trial; says why."""


class _Run:
    """The state of one run."""

    def __init__(self, planned: Plan, bundle: Bundle, observer: Observer) -> None:
        self.planned = planned
        self.bundle = bundle
        self.observer = observer
        self._certificates: list[dict[str, Any]] = []
        self._failures: list[str] = []
        self._row = 0

    def execute(self) -> Bundle:
        trials, started = self.planned.trials(), time.monotonic()
        where = "before the first trial"
        try:
            with _terminable():
                for number, trial in enumerate(trials):
                    where = f"during {_name(trial)} ({number + 1} of {len(trials)} trials)"
                    self._set_status(f"incomplete: cut off {where}")
                    self.observer.trial_started(trial, number, len(trials))
                    self._one(trial)
        except _Ended as ended:
            self._set_status(f"incomplete: {ended}", stopped=True)
        except DiskFullError as error:
            self._set_status(f"incomplete: {error} ({where})", stopped=True)
        except KeyboardInterrupt as error:
            self._set_status(
                f"incomplete: {str(error) or 'interrupted by Ctrl-C'} {where}", stopped=True
            )
        else:
            self._set_status(self._final(len(trials)), seconds=round(time.monotonic() - started, 1))
        return self.bundle

    def _final(self, total: int) -> str:
        if not self._failures:
            return COMPLETE
        if total == 1:
            return f"incomplete: {self._failures[0]}"
        return f"incomplete: {len(self._failures)} of {total} trials failed: {self._failures[0]}"

    def _set_status(self, status: str, **facts: Any) -> None:
        self.bundle.run.update(status=status, **facts)
        self.bundle.save()

    def _one(self, trial: Trial) -> None:
        entry: dict[str, Any] = {
            **dataclasses.asdict(trial), "status": "cut off", "error": "",
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seconds": 0.0,
        }  # fmt: skip
        self.bundle.run["trials"].append(entry)
        began = time.monotonic()
        try:
            answer = self._process(trial).run(self.observer)
        except KeyboardInterrupt:
            entry.update(status="interrupted", error="interrupted")
            raise
        finally:
            entry["seconds"] = round(time.monotonic() - began, 3)
        if answer["kind"] == "done":
            self._keep(trial, entry, answer)
        else:
            self._failed(trial, entry, answer)

    def _process(self, trial: Trial) -> TrialProcess:
        return TrialProcess(
            trial,
            self.bundle.path,
            use_case=self.planned.use_case.name,
            folders=self.planned.folders,
            parameters=self.planned.params.as_dict(),
            limit_s=self.planned.use_case.trial_limit_s,
            observe=self.planned.observe,
        )

    def _keep(self, trial: Trial, entry: dict[str, Any], answer: dict[str, Any]) -> None:
        entry.update(status="complete", seconds=answer["seconds"])
        self.bundle.run.update(engines=answer["engines"], settings=answer["settings"])
        label = {"variant": trial.variant, "repeat": trial.repeat}
        self._certificates.append({**label, **answer["certificate"]})
        self.bundle.write("certificate.json", summarise(self._certificates))
        self._row = 0
        self.observer.trial_ended(trial, "")

    def _failed(self, trial: Trial, entry: dict[str, Any], answer: dict[str, Any]) -> None:
        message, remedy = answer["message"], answer.get("remedy", "")
        line = f"{_name(trial)}: {message}" + (f"; {remedy}" if remedy else "")
        entry.update(status="failed", error=message, traceback=answer.get("traceback", ""))
        self.observer.trial_ended(trial, line)
        self._failures.append(line)
        self._row += 1
        if answer.get("type") == "DiskFullError":
            raise _Ended(line)
        if answer.get("exit_status", 1) == 2:  # the machine's or the user's: it will not pass
            raise _Ended(line)
        if self._row == _ROW_OF_FAILURES < len(self.planned.trials()):
            raise _Ended(f"{self._row} trials in a row failed, the last one: {line}")


def _name(trial: Trial) -> str:
    return f"{trial.variant} repeat {trial.repeat + 1}"


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the run as Ctrl-C does."""

    def stop(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")

    try:
        old = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    except ValueError:  # not the main thread: signals are someone else's business
        yield
        return
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def status_error(bundle: Bundle) -> TestbedError | None:
    """The error to end a command with when the run is not complete."""
    if not bundle.why_incomplete:
        return None
    return TestbedError(f"{bundle.why_incomplete}", remedy=f"what there is is in {bundle.path}")
