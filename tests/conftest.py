"""Live tests: each one runs in a sandbox of its own, so none can leave anything behind."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.errors import PrivilegeError
from testbed.sandbox import call


def _sandbox_refused() -> str:
    try:
        call(int)
    except PrivilegeError as error:
        return str(error)
    return ""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test marked `live` as the payload of a new sandbox; its failure comes back here."""
    if pyfuncitem.get_closest_marker("live") is None:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names}
    call(_run, pyfuncitem.obj, arguments)
    return True


def _run(function: Any, arguments: dict[str, Any]) -> None:
    function(**arguments)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip live tests, with the doctor's reason, where no sandbox can be had."""
    live = [item for item in items if item.get_closest_marker("live")]
    reason = _sandbox_refused() if live else ""
    for item in live:
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
