"""Scheduled changes: what happens to a network when, by one clock.

    timeline = Timeline()
    timeline.at(2.0, link.update, bw=5)
    timeline.at("3s", net.partition, {"h1"}, {"h2"})

In a use case `timeline.follow(record)` plays it beside the traffic, by the trial's clock, and an
action that fails ends the trial.  In a plain script `with timeline:` plays it in a thread.  Each
event's planned and actual time are kept, and recorded as events of kind "scheduled".

`testbed.network.schedule` reads timelines from lines of text and from TOML.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from testbed.errors import ExperimentError, ParameterError, TestbedError
from testbed.links import units
from testbed.links.player import Player

if TYPE_CHECKING:
    from testbed.run.recorder import Recorder


@dataclass
class Event:
    """An action, when it is planned, and (once it has run) when it began; s since the epoch."""

    planned_s: float
    name: str
    action: Callable[[], object]
    began_s: float | None = None
    took_s: float | None = None


class Timeline:
    """Events in order of time; those of the same time in the order in which they were added.

    `clock` (CLOCK_MONOTONIC's) may be replaced in tests.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.events: list[Event] = []
        self._clock = clock
        self._player: Player | None = None
        self._tell: Callable[[Event], object] = lambda _event: None

    def at(
        self, when: float | str, action: Callable[..., object], *args: Any, **kwargs: Any
    ) -> Event:
        """Plan `action(*args, **kwargs)` for `when`: seconds, or a text such as "2s", "500ms"."""
        bound = functools.partial(action, *args, **kwargs)
        return self.add(moment(when), _name_of(action, args, kwargs), bound)

    def add(self, planned_s: float, name: str, action: Callable[[], object]) -> Event:
        """Plan an action under a name, by which it is called when it fails."""
        if self._player is not None:
            raise ExperimentError(
                f"{name}: the timeline runs already", remedy="plan everything before it starts"
            )
        event = Event(planned_s, name, action)
        self.events.append(event)
        self.events.sort(key=lambda each: each.planned_s)
        return event

    @property
    def ends_s(self) -> float:
        """When the last event is planned; 0 without any."""
        return self.events[-1].planned_s if self.events else 0.0

    # -- in a trial ---------------------------------------------------------------------------

    def follow(self, record: Recorder) -> asyncio.Future[None]:
        """Play it by the trial's clock, which has been started, until the trial ends.

        A failing action ends the trial.  The future is done when the last event is.
        """
        self._tell = functools.partial(_record, record)
        self._begin(record.epoch)
        task = asyncio.ensure_future(self._watch(record))
        record.defer(functools.partial(self._leave, task))
        return task

    async def _watch(self, record: Recorder) -> None:
        assert self._player is not None
        try:
            await asyncio.to_thread(self._player.join)
        except Exception as error:
            record.fail(error)

    async def _leave(self, task: asyncio.Future[None]) -> None:
        assert self._player is not None
        await asyncio.to_thread(self._player.stop)
        await task

    # -- in a script --------------------------------------------------------------------------

    def start(self) -> None:
        """Play it in a thread, from now on."""
        self._begin(self._clock())

    def wait(self) -> None:
        """Wait for the last event; raises what an action raised, under its name."""
        if self._player is not None:
            self._player.join()

    def stop(self) -> None:
        """Leave out what has not begun; raises what an action raised, under its name."""
        if self._player is not None:
            self._player.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Wait for the last event, unless the block has failed."""
        if kind is not None:
            self.stop()
        self.wait()

    # -- playing ------------------------------------------------------------------------------

    def _begin(self, epoch: float) -> None:
        if self._player is not None:
            raise ExperimentError("the timeline runs already", remedy="make another one")
        self._player = Player(self.schedule(epoch), epoch=epoch, clock=self._clock)
        self._player.start()

    def schedule(self, epoch: float) -> Iterator[tuple[float, Callable[[], object]]]:
        """When to do what, for a `Player` with that epoch."""
        for event in self.events:
            yield event.planned_s, functools.partial(self._run, event, epoch)

    def _run(self, event: Event, epoch: float) -> None:
        event.began_s = self._clock() - epoch
        try:
            event.action()
        except TestbedError as error:
            raise ExperimentError(f"{event.name}: {error.message}", remedy=error.remedy) from error
        except Exception as error:
            raise ExperimentError(f"{event.name}: {type(error).__name__}: {error}") from error
        event.took_s = self._clock() - epoch - event.began_s
        self._tell(event)


def moment(when: float | str) -> float:
    """Seconds from a number of them or from a text with a unit ("2s", "500ms", "1.5")."""
    if isinstance(when, str):
        quantity = units.split(when)
        if quantity is None or quantity[1] not in {"", *units.TIMES}:
            raise ParameterError(f"{when!r} is not a time", remedy='write it like "2s" or "500ms"')
        when = quantity[0] * units.TIMES[quantity[1] or "s"]
    return units.number("a time", when, low=0, high=1e9, meaning="seconds, 0 or more")


def _record(record: Recorder, event: Event) -> None:
    record.event(
        "scheduled", name=event.name, planned_s=event.planned_s,
        began_s=event.began_s, took_s=event.took_s,
    )  # fmt: skip


def _name_of(action: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """An action as it would be written: "h1-r1.update(bw=5)"."""
    owner = getattr(action, "__self__", None)
    label = getattr(owner, "label", None) or getattr(owner, "name", None)
    what = getattr(action, "__name__", str(action))
    words = [_word(each) for each in args] + [f"{key}={value}" for key, value in kwargs.items()]
    return f"{label}.{what}({', '.join(words)})" if label else f"{what}({', '.join(words)})"


def _word(value: Any) -> str:
    """A value in an action's name; a group of nodes in the order of their names."""
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(str, value)))}}}"
    return str(value)
