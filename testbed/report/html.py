"""The report: one self-contained HTML file on one or more bundles of a use case.

This module gathers what the page shows, in words and rounded; template.html.j2 lays it out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from testbed.run.bundle import COMPLETE, Bundle
from testbed.verdict import FAILS, HOLDS

if TYPE_CHECKING:
    from testbed.report.publish import Judged, Published
    from testbed.report.results import Results

_SHOWN_BUNDLES = 6  # that a table of parameters has room for side by side


def render(published: Published) -> str:
    """The page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("testbed.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("template.html.j2").render(**_page(published))


def _page(published: Published) -> dict[str, Any]:
    results, use_case = published.results, published.results.use_case
    bundles = results.bundles
    return {
        "use_case": use_case,
        "bundles": bundles,
        "results": results,
        "claims": [_claim(each) for each in published.judged],
        "summary": _summary(published.judged),
        "observed": published.observed,
        "figures": [
            {"figure": each.figure, "missing": each.missing, "svg": _inline(each.svg)}
            for each in published.drawn
        ],
        "variants": [_variant(results, name) for name in _tried(bundles)],
        "trials": [trial for bundle in bundles for trial in bundle.run["trials"]],
        "links": _links(results.certificates),
        "parameters": _parameters(bundles),
        "provenance": [(bundle, _provenance(bundle)) for bundle in bundles],
        "complete": COMPLETE,
    }


def _claim(judged: Judged) -> dict[str, str]:
    kinds = {HOLDS: "good", FAILS: "bad"}
    verdict = judged.verdict
    return {
        "statement": judged.claim.statement,
        "source": judged.claim.source,
        "verdict": verdict.outcome,
        "kind": kinds.get(verdict.outcome, "open"),
        "measured": verdict.measured or verdict.why,
    }


def _summary(judged: Sequence[Judged]) -> str:
    holding = sum(each.verdict.outcome == HOLDS for each in judged)
    return f"{holding} of {len(judged)} claims hold" if judged else "no claims"


def _tried(bundles: Sequence[Bundle]) -> list[str]:
    return list(dict.fromkeys(name for bundle in bundles for name in bundle.run["variants"]))


def _variant(results: Results, name: str) -> dict[str, Any]:
    texts = [bundle.run["variants"][name] for bundle in results.bundles
             if name in bundle.run["variants"]]  # fmt: skip
    known = name in results.use_case.variants
    planned = sum(bundle.run["repeats"] for bundle in results.bundles
                  if name in bundle.run["variants"])  # fmt: skip
    return {
        "name": name,
        "text": texts[0],
        "colour": results.look(name).colour if known else "#000000",
        "done": int((results.trials.variant == name).sum()),
        "planned": planned,
    }


def _inline(svg: str) -> str:
    """An SVG document as an element of a page: no prologue, its size left to the page."""
    element = svg[svg.find("<svg") :]
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(
        r'(<svg[^>]*?) height="[^"]*"', r"\1", element, count=1), count=1)  # fmt: skip


# -- the certificate -----------------------------------------------------------------------------


def _links(certificates: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a direction: what was configured, and the spread over all trials."""
    rows: defaultdict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for certificate in certificates:
        for trial in certificate["trials"]:
            for link in trial["links"]:
                rows[link["direction"], link["configured"]].append(link)
    return [_link(*key, found) for key, found in rows.items()]


def _link(direction: str, configured: str, trials: list[Mapping[str, Any]]) -> dict[str, Any]:
    first = trials[0]
    losses = _spread(trials, "measured_loss_ratio", lambda v: f"{v:.2%}")
    return {
        "direction": direction.replace(">", "→"),
        "engine": ", ".join(sorted({str(each["engine"]) for each in trials})),
        "configured": configured,
        "rate": _spread(trials, "measured_rate_ratio", lambda v: f"{v:.1%}"),
        "delay": _spread(trials, "measured_delay_s", lambda v: f"{v * 1e3:.2f}"),
        "loss": losses if first["loss_ratio"] or losses != "0.00%" else "0",
        "lag": _lag(trials),
        "outside": sum(each["outside_drops"] for each in trials),
        "problems": list(dict.fromkeys(p for each in trials for p in each["problems"])),
    }


def _spread(trials: Iterable[Mapping[str, Any]], key: str, show: Callable[[float], str]) -> str:
    values = [each[key] for each in trials if each[key] is not None]
    if not values:
        return "–"
    low, high = show(min(values)), show(max(values))
    return low if low == high else f"{low} to {high}"


def _lag(trials: Iterable[Mapping[str, Any]]) -> str:
    keys = ("lag_p50_s", "lag_p99_s", "lag_p999_s", "lag_max_s")
    found = [[each[key] for key in keys] for each in trials if each["lag_p99_s"] is not None]
    if not found:
        return "–"
    return " / ".join(f"{max(column) * 1e3:.2f}" for column in zip(*found, strict=True))


# -- parameters and provenance -------------------------------------------------------------------


def _parameters(bundles: Sequence[Bundle]) -> list[dict[str, Any]]:
    """Key, unit and the value of each bundle; where bundles differ says so."""
    rows = []
    for key in dict.fromkeys(key for bundle in bundles for key in bundle.run["parameters"]):
        values = [_text(bundle.run["parameters"].get(key, "")) for bundle in bundles]
        differ = len(set(values)) > 1
        shown = values if differ and len(values) <= _SHOWN_BUNDLES else list(dict.fromkeys(values))
        unit = next((b.run["units"].get(key, "") for b in bundles if key in b.run["units"]), "")
        rows.append({"key": key, "unit": unit, "values": shown, "differ": differ})
    return rows


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _provenance(bundle: Bundle) -> list[tuple[str, str]]:
    run = bundle.run
    machine, revision = run["machine"], run["revision"]
    commit = revision.get("commit", "not from a git checkout")
    if revision.get("changed_files"):
        commit += f" and {revision['changed_files']} files changed since"
    remote = machine.get("remote")
    where = f"{remote['name']} ({remote['provider']}, {remote['address']})" if remote else ""
    engines = dict.fromkeys(f"{each['engine']}: {each['why']}" for each in run["engines"])
    return [
        ("Command", " ".join(run["command"])),
        ("Started", f"{run['started']}, {run.get('seconds', '?')} s"),
        ("Seed", str(run["seed"])),
        ("Link engines", "; ".join(engines) or "none was needed"),
        ("Revision", commit),
        *((("Ran on", where),) if where else ()),
        ("Machine", f"{machine['cpus']} processors, {machine['cpu']}, "
         f"{machine['memory_bytes'] / 2**30:.1f} GiB"
         + (", virtual" if machine["virtual"] else "")),
        ("Kernel", f"{machine['kernel']} ({machine['kernel_build']})"),
        ("System", machine["os"]),
        *((name, value) for name, value in run["settings"].items()),
        ("Packages", ", ".join(f"{name} {version}" for name, version in run["packages"].items())),
    ]  # fmt: skip
