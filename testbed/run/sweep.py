"""Grids of parameters: every combination of the values given."""

from __future__ import annotations

import itertools
import typing
from collections.abc import Mapping
from typing import Any

from testbed.errors import ParameterError
from testbed.run.parameters import Parameters

LARGEST = 1000


def points(params: Parameters, grid: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One mapping of changes for every combination; a value that is no list holds in all.

    A parameter that takes a list itself is swept by a list of lists.  Raises `ParameterError` for
    values that do not fit, an empty list, or more than `LARGEST` points.
    """
    axes: dict[str, list[Any]] = {}
    lists = {each.key for each in params.declarations() if typing.get_origin(each.type) is tuple}
    for key, value in grid.items():
        swept = isinstance(value, list)
        if key.replace("-", "_") in lists:
            swept = swept and any(isinstance(each, list) for each in value)
        axes[key] = value if swept else [value]
        for each in axes[key]:
            params.changed({key: each})
        if not axes[key]:
            raise ParameterError(f"{key} has an empty list of values", remedy="give at least one")
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > LARGEST:
        raise ParameterError(
            f"the grid has {count} points", remedy=f"take values away: at most {LARGEST}"
        )
    return [dict(zip(axes, each, strict=True)) for each in itertools.product(*axes.values())]
