"""Parameters of a use case: typed, documented, with units and limits, changed by name.

A use case declares a frozen dataclass; a nested one is a group, and gives its members dotted
names:

    @dataclass(frozen=True, kw_only=True)
    class Link(Parameters):
        bw: float = parameter(20.0, unit="Mb/s", help="rate", minimum=0.1)
        delay: float = parameter(10.0, unit="ms", help="one-way delay", minimum=0)

    @dataclass(frozen=True, kw_only=True)
    class Pooling(Parameters):
        wifi: Link = Link()
        lte: Link = Link(bw=10, delay=30)

    Pooling().changed({"wifi.bw": "1Gb/s", "lte.delay": 0.5})

This module turns text and TOML values into such objects and says what is wrong with what does
not fit.  Units are read by `testbed.run.units`; what a parameter does is the use case's.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from testbed.errors import ParameterError, TestbedError
from testbed.run import units

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def parameter(
    default: Any,
    *,
    unit: str = "",
    help: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[Any] = (),
) -> Any:
    """A field of a `Parameters` class: its default, unit, one line of help, and limits."""
    about = {"unit": unit, "help": help, "minimum": minimum, "maximum": maximum}
    return dataclasses.field(default=default, metadata={**about, "choices": tuple(choices)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declaration:
    """What is known of one parameter: its dotted key, type, default, unit and limits."""

    key: str
    type: Any
    default: Any
    unit: str = ""
    help: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] = ()

    @property
    def type_name(self) -> str:
        """The type as a user would say it: "number", "whole number", "text", ..."""
        return _type_name(self.type)

    @property
    def limits(self) -> str:
        """The values allowed, in words; "" when anything of the type is."""
        if self.choices:
            return "one of " + ", ".join(map(str, self.choices))
        unit = f" {self.unit}" if self.unit else ""
        low, high = self.minimum, self.maximum
        if low is not None and high is not None:
            return f"{low:g} to {high:g}{unit}"
        if low is not None:
            return f"at least {low:g}{unit}"
        return f"at most {high:g}{unit}" if high is not None else ""

    def parse(self, value: Any) -> Any:
        """`value` (text or a TOML value) as this parameter's type, checked.

        Raises `ParameterError` naming the key, the value and what is allowed.
        """
        try:
            parsed = _convert(value, self.type, self.unit)
        except ParameterError as error:
            raise ParameterError(f"{self.key}: {error.message}", remedy=error.remedy) from None
        self.check(parsed)
        return parsed

    def check(self, value: Any) -> None:
        """Raise `ParameterError` unless `value` is within the limits."""
        for item in value if isinstance(value, tuple) else (value,):
            if not self._within(item):
                unit = f" {self.unit}" if self.unit and not self.choices else ""
                raise ParameterError(
                    f"{self.key} = {item}{unit} is not allowed", remedy=f"it must be {self.limits}"
                )

    def _within(self, value: Any) -> bool:
        if value is None:
            return True
        if self.choices:
            return value in self.choices
        if isinstance(value, bool | str):
            return True
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        return bool(low <= value <= high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameters:
    """Base of a use case's parameters; subclasses are `@dataclass(frozen=True, kw_only=True)`.

    Types allowed: float, int, str, bool, `X | None` and `tuple[X, ...]` of these, and other
    `Parameters` classes as groups.
    """

    def __post_init__(self) -> None:
        if "__dataclass_fields__" not in type(self).__dict__:
            raise TestbedError(
                f"{type(self).__name__} is not a dataclass",
                remedy="decorate it with @dataclass(frozen=True, kw_only=True)",
            )
        hints = typing.get_type_hints(type(self))
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, Parameters):
                declared = _declaration(item, hints[item.name], value, item.name)
                object.__setattr__(self, item.name, declared.parse(value))

    def declarations(self, prefix: str = "") -> tuple[Declaration, ...]:
        """Every parameter in order, groups opened; its default is the value it has here."""
        found: list[Declaration] = []
        hints = typing.get_type_hints(type(self))
        for item in dataclasses.fields(self):
            value, key = getattr(self, item.name), prefix + item.name
            if isinstance(value, Parameters):
                found += value.declarations(f"{key}.")
            else:
                found.append(_declaration(item, hints[item.name], value, key))
        return tuple(found)

    def as_dict(self) -> dict[str, Any]:
        """Dotted key -> value, in the parameter's own unit."""
        return {each.key: each.default for each in self.declarations()}

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """A copy with `changes` (dotted key -> text or value) applied; - and _ are the same.

        Raises `ParameterError` for an unknown key (with the nearest names) or a value of the
        wrong type, unit or range.
        """
        known = {each.key: each for each in self.declarations()}
        parsed: dict[str, Any] = {}
        for given, value in changes.items():
            key = given.strip().replace("-", "_")
            if key not in known:
                raise _unknown(given, key, known)
            parsed[key] = known[key].parse(value)
        return self._with(parsed)

    def _with(self, changes: Mapping[str, Any]) -> Self:
        here = {key: value for key, value in changes.items() if "." not in key}
        for name in dict.fromkeys(key.partition(".")[0] for key in changes if "." in key):
            inner = {k[len(name) + 1 :]: v for k, v in changes.items() if k.startswith(f"{name}.")}
            here[name] = getattr(self, name)._with(inner)
        return dataclasses.replace(self, **here)


def assignments(items: Iterable[str]) -> dict[str, str]:
    """`--set` arguments ("wifi.bw=20") as a mapping; `ParameterError` where = is missing."""
    found = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise ParameterError(f"--set {item}: no value", remedy="write --set NAME=VALUE")
        found[key.strip()] = value.strip()
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file of parameters, tables opened into dotted keys.

    Raises `ParameterError` naming the file when it cannot be read or is not TOML.
    """
    try:
        return dict(_flat(tomllib.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise ParameterError(f"{path}: {error.strerror}", remedy="give a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path} is not TOML: {error}", remedy="see toml.io") from error


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def nearest(name: str, known: Iterable[str]) -> str:
    """ "did you mean A or B?" for a misspelt `name`, or the list of what there is."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    # "bw" for "wifi.bw": the last part alone is the commonest slip
    close += [n for n in names if n.rpartition(".")[2] == name.rpartition(".")[2]]
    close = list(dict.fromkeys(close))[:3]
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"there is {', '.join(names)}" if names else "there is none"


def _unknown(given: str, key: str, known: Mapping[str, Declaration]) -> ParameterError:
    members = [each for each in known if each.startswith(f"{key}.")]
    if members:
        return ParameterError(
            f"{given} is a group of parameters", remedy=f"set one of {', '.join(members)}"
        )
    return ParameterError(f"unknown parameter {given}", remedy=nearest(key, known))


def _declaration(item: dataclasses.Field[Any], hint: Any, value: Any, key: str) -> Declaration:
    return Declaration(key=key, type=hint, default=value, **item.metadata)


def _convert(value: Any, hint: Any, unit: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        inner = next(each for each in typing.get_args(hint) if each is not types.NoneType)
        missing = value is None or (isinstance(value, str) and value.lower() == "none")
        return None if missing else _convert(value, inner, unit)
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            items = [items]
        return tuple(_convert(each, typing.get_args(hint)[0], unit) for each in items)
    return _scalar(value, hint, unit)


def _scalar(value: Any, hint: Any, unit: str) -> Any:
    if hint is str and isinstance(value, str):
        return value.strip()
    if hint is bool:
        return _truth(value)
    if hint in (int, float) and isinstance(value, int | float | str) and type(value) is not bool:
        number = units.quantity(value if isinstance(value, str) else repr(value), unit)
        if hint is float:
            return number
        if number == int(number):
            return int(number)
    raise ParameterError(f"{value!r} is not a {_type_name(hint)}", remedy=_example(hint, unit))


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    raise ParameterError(f"{value!r} is not yes or no", remedy="write true or false")


def _example(hint: Any, unit: str) -> str:
    if hint is int:
        return "write a whole number" + (f" of {unit}" if unit else "")
    return f"write {units.allowed(unit)}" if hint is float else "write text"


def _type_name(hint: Any) -> str:
    names = {float: "number", int: "whole number", str: "text", bool: "yes/no"}
    arguments = [each for each in typing.get_args(hint) if each not in (types.NoneType, Ellipsis)]
    if typing.get_origin(hint) is tuple:
        return f"list of {_type_name(arguments[0])}"
    if arguments:
        return f"{_type_name(arguments[0])} or none"
    return names.get(hint, str(hint))
