"""Timelines as text: one line an event, or TOML.

    2s     link h1 s1 down              up, cut, mend; or `link h1-eth0 down` by an interface
    2500ms link h1 s1 update bw=5 delay=30ms
    3s     link h1 s1 update loss=2 from=h1       only what leaves h1
    4s     link h1 s1 replay lte.csv loop=yes scale=0.5 from=h1
    9s     link h1 s1 replay stop
    5s     node r1 freeze               thaw, kill, restart
    6s     partition h1 r1 | h2 | h3 h4
    8s     heal

and the same in TOML:

    [[event]]
    at = "2s"
    link = "h1-s1"
    update = {bw = 5}

with `do = "down"` for what takes no values, `replay = "lte.csv"`, `node = "r1"`,
`partition = [["h1", "r1"], ["h2"]]` and `heal = true`.

Everything is checked when it is read, as far as the network can tell; an error names the line.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.errors import ParameterError, TopologyError, UserError
from testbed.links.trace import load as load_trace
from testbed.network.timeline import Timeline, moment

_LINK_WORDS = ("down", "up", "cut", "mend")
_NODE_WORDS = ("freeze", "thaw", "kill", "restart")
_SUBJECTS = ("link", "node", "partition", "heal")
_EXAMPLE = 'write one like "2s link h1 s1 down"'
_TRUTHS = {"yes": True, "no": False, "true": True, "false": False}


@dataclass(frozen=True)
class Step:
    """One line: when, what to whom; `names` are nodes, or an interface, or groups of nodes."""

    at_s: float
    subject: str
    names: tuple[Any, ...] = ()
    verb: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


# -- reading -------------------------------------------------------------------------------------


def parse(lines: str | Iterable[str], net: Any, *, folder: Path | None = None) -> Timeline:
    """A timeline for `net` from lines of text; blank ones and comments (#) are skipped.

    Files of traces are looked for in `folder`.  Raises `UserError` that names the line.
    """
    timeline = Timeline()
    for number, line in enumerate(lines.splitlines() if isinstance(lines, str) else lines, 1):
        text = line.partition("#")[0].strip()
        if text:
            _add(timeline, f"line {number}, {text!r}", functools.partial(step, text), net, folder)
    return timeline


def gather(net: Any, lines: Iterable[str], file: Path | None = None) -> Timeline:
    """What the command line says: lines, and a file of more."""
    timeline = parse(lines, net)
    for event in load(file, net).events if file is not None else ():
        timeline.add(event.planned_s, f"{file}, {event.name}", event.action)
    return timeline


def load(path: Path, net: Any) -> Timeline:
    """A timeline from a TOML file (its name ends in .toml) or a file of lines."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(f"cannot read {path}: {error}", remedy="give a timeline") from error
    if path.suffix == ".toml":
        return parse_toml(text, net, folder=path.parent)
    return parse(text, net, folder=path.parent)


def parse_toml(text: str, net: Any, *, folder: Path | None = None) -> Timeline:
    """A timeline for `net` from TOML."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ParameterError(f"the timeline is not TOML: {error}", remedy="see toml.io") from error
    events = tables.pop("event", [])
    if tables or not isinstance(events, list):
        raise ParameterError(
            f"a timeline has no {next(iter(tables), 'event')!r}", remedy="begin events: [[event]]"
        )
    timeline = Timeline()
    for number, table in enumerate(events, 1):
        _add(timeline, f"event {number}", functools.partial(step_of, table), net, folder)
    return timeline


def _add(
    timeline: Timeline, where: str, read: Callable[[], Step], net: Any, folder: Path | None
) -> None:
    try:
        found = read()
        timeline.add(found.at_s, where, bind(found, net, folder))
    except UserError as error:
        raise type(error)(f"{where}: {error.message}", remedy=error.remedy) from error


def step(text: str) -> Step:
    """The step that a line describes."""
    when, _space, rest = text.partition(" ")
    subject, _space, rest = rest.strip().partition(" ")
    at_s, words = moment(when), rest.split()
    if subject == "link":
        return _link_step(at_s, words)
    if subject == "node" and len(words) == 2:
        return _checked(Step(at_s, "node", (words[0],), words[1]))
    if subject == "partition" and words:
        return Step(at_s, "partition", tuple(tuple(part.split()) for part in rest.split("|")))
    if subject == "heal" and not words:
        return Step(at_s, "heal")
    raise ParameterError(f"cannot be read: {' '.join([subject, *words])!r}", remedy=_EXAMPLE)


def _link_step(at_s: float, words: list[str]) -> Step:
    verbs = [k for k, word in enumerate(words[:3]) if k and word in (*_LINK_WORDS, *_TAKING)]
    if not verbs:
        raise ParameterError(
            f"nothing is said to happen to link {' '.join(words)!r}",
            remedy=f"say one of {', '.join((*_LINK_WORDS, *_TAKING))}",
        )
    place = verbs[-1]
    names, verb, rest = tuple(words[:place]), words[place], words[place + 1 :]
    values: dict[str, Any] = {}
    if verb == "replay":
        values["trace"] = rest.pop(0) if rest else ""
    for word in rest:
        key, equals, value = word.partition("=")
        if not equals or not key or not value or key in values:
            raise ParameterError(f"{word!r} is no value", remedy="write KEY=VALUE, each key once")
        values[key] = _value(value)
    return _checked(Step(at_s, "link", names, verb, values))


_TAKING = ("update", "replay")


def _value(text: str) -> Any:
    if text in _TRUTHS:
        return _TRUTHS[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def step_of(table: Any) -> Step:
    """The step that a table of TOML describes."""
    if not isinstance(table, dict) or "at" not in table:
        raise ParameterError("it has no time", remedy='write at = "2s"')
    rest = dict(table)
    at_s = moment(rest.pop("at"))
    subjects = [key for key in _SUBJECTS if key in rest]
    if len(subjects) != 1:
        raise ParameterError(
            f"it is about {subjects}", remedy=f"name one of {', '.join(_SUBJECTS)}"
        )
    subject, named = subjects[0], rest.pop(subjects[0])
    if subject == "link":
        return _checked(_link_table(at_s, named, rest))
    verb = str(rest.pop("do", "")) if subject == "node" else ""
    if rest:
        raise ParameterError(f"{subject} takes no {next(iter(rest))!r}", remedy=_EXAMPLE)
    if subject == "partition":
        if not isinstance(named, list) or not all(isinstance(group, list) for group in named):
            raise ParameterError(f"partition is {named!r}", remedy='write [["h1"], ["h2"]]')
        return Step(at_s, "partition", tuple(tuple(group) for group in named))
    return _checked(Step(at_s, subject, (str(named),) if subject == "node" else (), verb))


def _link_table(at_s: float, named: Any, rest: dict[str, Any]) -> Step:
    verbs = [key for key in ("do", *_TAKING) if key in rest]
    if len(verbs) != 1:
        raise ParameterError(f"link {named} has {verbs}", remedy="give one of do, update, replay")
    verb, given = verbs[0], rest.pop(verbs[0])
    if verb == "do":
        verb, values = str(given), {}
    elif verb == "replay":
        values = {"trace": str(given)}
    elif isinstance(given, dict):
        values = dict(given)
    else:
        raise ParameterError(f"update is {given!r}", remedy="write update = {bw = 5}")
    return Step(at_s, "link", (str(named),), verb, {**values, **rest})


def _checked(found: Step) -> Step:
    """Refuse verbs and values that this subject does not have."""
    known = {"link": (*_LINK_WORDS, *_TAKING), "node": _NODE_WORDS}.get(found.subject, ("",))
    if found.verb not in known:
        raise ParameterError(
            f"{found.subject} has no {found.verb!r}", remedy=f"say one of {', '.join(known)}"
        )
    if found.verb == "update" and not found.values.keys() - {"from"}:
        raise ParameterError("update changes nothing", remedy="write update bw=5")
    if found.verb == "replay":
        stray = found.values.keys() - {"trace", "loop", "scale", "from"}
        if stray or not found.values.get("trace"):
            raise ParameterError(
                f"replay {found.values.get('trace', '')!r} {' '.join(sorted(stray))}",
                remedy="write replay FILE [loop=yes] [scale=0.5] [from=NODE], or replay stop",
            )
    if found.verb in _LINK_WORDS and found.values:
        raise ParameterError(
            f"{found.verb} takes no {next(iter(found.values))!r}", remedy="leave it out"
        )
    return found


# -- binding to a network ------------------------------------------------------------------------


def bind(found: Step, net: Any, folder: Path | None = None) -> Callable[[], object]:
    """What to call when the step's time has come; raises `UserError` for what is not there."""
    if found.subject == "heal":
        return net.heal  # type: ignore[no-any-return]
    if found.subject == "partition":
        for name in (each for group in found.names for each in group):
            _node(net, name)
        return functools.partial(net.partition, *found.names)
    if found.subject == "node":
        return getattr(_node(net, found.names[0]), found.verb)  # type: ignore[no-any-return]
    link = find_link(net, found.names)
    if found.verb in _LINK_WORDS:
        return getattr(link, found.verb)  # type: ignore[no-any-return]
    values = dict(found.values)
    side = _side(link, values.pop("from", None))
    if found.verb == "replay":
        return _bind_replay(link, values, side, folder)
    link.changed(**_sided(values, side))
    return functools.partial(link.update, **_sided(values, side))


def _bind_replay(
    link: Any, values: dict[str, Any], side: int | None, folder: Path | None
) -> Callable[[], object]:
    name = values.pop("trace")
    if name == "stop":
        return functools.partial(link.stop_replay, **({"direction": side} if side else {}))
    trace = load_trace(folder / name if folder else Path(name))
    return functools.partial(link.replay, trace, direction=side, **values)


def _sided(values: dict[str, Any], side: int | None) -> dict[str, Any]:
    return values if side is None else {f"params{side}": values}


def _side(link: Any, sender: Any) -> int | None:
    """1 or 2, the end of the link whose packets are meant; None for both."""
    if sender is None:
        return None
    names = [link.intf1.node.name, link.intf2.node.name]
    if sender not in names:
        raise ParameterError(f"from={sender} is no end of link {link}", remedy=f"choose of {names}")
    return names.index(sender) + 1


def find_link(net: Any, names: tuple[str, ...]) -> Any:
    """The link between two nodes, or with one name: of an interface, or "h1-s1"."""
    if len(names) == 1:
        for link in net.links:
            if names[0] in (link.intf1.name, link.intf2.name):
                return link
        dashes = [k for k, letter in enumerate(names[0]) if letter == "-"]
        splits = [(names[0][:k], names[0][k + 1 :]) for k in dashes]
        pairs = [pair for pair in splits if pair[0] in net and pair[1] in net]
        if len(pairs) != 1:
            raise TopologyError(
                f"there is no link {names[0]!r}", remedy="name two nodes, or an interface"
            )
        names = pairs[0]
    first, second = (_node(net, name) for name in names)
    links = net.linksBetween(first, second)
    if len(links) != 1:
        raise TopologyError(
            f"there are {len(links) or 'no'} links between {first} and {second}",
            remedy="name an interface of the one you mean" if links else "see net.links",
        )
    return links[0]


def _node(net: Any, name: str) -> Any:
    if name not in net:
        raise TopologyError(f"there is no node {name!r}", remedy=f"choose of {', '.join(net)}")
    return net[name]
