"""What is made of records: tables, verdicts, figures, comparisons, the page."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
from run_lab import Answer, done, error, measured, tiny, told

from testbed.errors import ExperimentError, UserError
from testbed.report.compare import changed_parameters, compare
from testbed.report.publish import judge, publish, study
from testbed.report.results import Results
from testbed.run import Claim, Figure, MissingData, Recorder, Trial, UseCase, Verdict
from testbed.run.bundle import Bundle


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A complete run of all variants, two repeats each."""
    return told(tmp_path_factory.mktemp("whole"), repeats=2)


@pytest.fixture(scope="module")
def results(whole: Bundle) -> Results:
    return Results(tiny(), [whole])


def with_items(*items: Claim | Figure) -> UseCase[Any]:
    """`tiny` with these claims and figures in place of its own."""

    class Other(type(tiny())):  # type: ignore[misc]
        claims = tuple(each for each in items if isinstance(each, Claim))
        figures = tuple(each for each in items if isinstance(each, Figure))

    return Other()


def broken(trial: Trial, folder: Path) -> Answer:
    """The last repeat of mptcp fails, after it has recorded everything."""
    answer = measured(trial, folder)
    return error("it broke") if trial.label == "mptcp-1" else answer


# -- tables --------------------------------------------------------------------------------------


def test_results_are_tables_of_complete_trials(results: Results) -> None:
    assert results.variants == ("lte-only", "mptcp", "trusted")
    assert list(results.trials.columns) == ["bundle", "variant", "repeat", "seed", "seconds"]
    assert len(results.trials) == 6
    assert list(results.values("mean goodput", variant="mptcp")) == [30e6, 30.1e6]
    assert results.unit("mean goodput") == "bit/s"
    assert results.parameter("wifi.bw") == 20
    samples = results.samples("goodput", variant="mptcp", source="sender")
    assert len(samples) == 40
    assert all(group.time_s.is_monotonic_increasing for _key, group in samples.groupby("repeat"))
    assert list(results.events("halfway", variant="trusted").repeat) == [0, 1]


def test_estimates_and_ratios_over_repeats(results: Results) -> None:
    mean = results.mean("mean goodput", variant="lte-only")
    assert (mean.mean, mean.count) == (10.05e6, 2)
    assert mean.half_width == pytest.approx(12.706 * 0.05e6, rel=1e-3)
    ratio = results.ratio("mean goodput", variant="mptcp", baseline="lte-only")
    assert ratio.mean == pytest.approx((3 + 30.1 / 10.1) / 2)
    assert ratio.count == 2


def test_trials_that_failed_do_not_count_though_they_left_records(tmp_path: Path) -> None:
    bundle = told(tmp_path, broken, repeats=2)
    found = Results(tiny(), [bundle])
    assert len(bundle.series()) == 6
    assert list(found.values("mean goodput", variant="mptcp")) == [30e6]
    assert len(found.events("halfway")) == 5
    # a ratio is of repeats that both have
    assert found.ratio("mean goodput", variant="mptcp", baseline="lte-only").count == 1
    assert "mptcp repeat 2: it broke" in found.why_incomplete


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda r: r.values("stall"), "no complete trial has values of 'stall'"),
        (lambda r: r.values("leaked", variant="x"), "no complete trial of variant x has values of"),
        (lambda r: r.samples("leaked"), "no complete trial has samples of 'leaked'"),
        (lambda r: r.mean("goodput"), "no complete trial has results of 'goodput'"),
        (lambda r: r.samples("goodput", source="h9"), "from h9 has values of 'goodput'"),
        (lambda r: r.events("reboot", variant="mptcp"), "no event 'reboot' of variant mptcp"),
        (lambda r: r.parameter("wifi.colour"), "has no parameter wifi.colour"),
    ],
)
def test_what_is_lacking_is_said(results: Results, ask: Any, why: str) -> None:
    with pytest.raises(MissingData, match=why):
        ask(results)


def test_of_a_run_without_a_complete_trial_everything_is_missing(tmp_path: Path) -> None:
    published = publish(tiny(), told(tmp_path, lambda *_: error("no"), repeats=1))
    assert published.results.variants == ()
    assert {each.verdict.outcome for each in published.judged} == {"not measurable here"}
    assert all(each.missing for each in published.drawn)
    assert published.figures == ()
    assert published.report is not None
    assert "Not drawn: " in published.report.read_text()


# -- several bundles -----------------------------------------------------------------------------


def test_bundles_side_by_side(tmp_path: Path, whole: Bundle) -> None:
    other = told(tmp_path, repeats=1, changes={"wifi.bw": 5})
    both = Results(tiny(), [whole, other])
    assert both.parameter_of("wifi.bw") == {0: 20, 1: 5}
    assert both.parameter("lte.bw") == 10
    with pytest.raises(MissingData, match=r"the bundles differ in wifi\.bw: 20\.0, 5\.0"):
        both.parameter("wifi.bw")
    assert len(both.values("leaked", variant="trusted")) == 3


def test_bundles_of_two_use_cases_are_not_mixed(whole: Bundle) -> None:
    class Another(type(tiny())):  # type: ignore[misc]
        name = "another"

    with pytest.raises(UserError, match="is of use case tiny, not another; report bundles of one"):
        Results(Another(), [whole])


def test_a_comparison_shows_what_changed_and_whether_it_is_clear(
    tmp_path: Path, whole: Bundle
) -> None:
    def faster(trial: Trial, folder: Path) -> Answer:
        record = Recorder(folder, trial)
        record.result("mean goodput", 60e6 + trial.repeat, "bit/s")
        if trial.variant == "mptcp":
            record.result("stall", 0, "s")
        record.close()
        return done()

    changed = told(tmp_path, faster, repeats=2, changes={"wifi.bw": 5}, variants=["mptcp"])
    both = Results(tiny(), [whole, changed])
    assert changed_parameters(both) == {"wifi.bw": (20, 5)}
    rows = {(row.metric, row.variant): row for row in compare(both)}
    assert list(rows) == [
        ("leaked", "lte-only"), ("leaked", "mptcp"), ("leaked", "trusted"),
        ("mean goodput", "lte-only"), ("mean goodput", "mptcp"), ("mean goodput", "trusted"),
        ("stall", "mptcp"),
    ]  # fmt: skip
    grown = rows["mean goodput", "mptcp"]
    assert grown.change == pytest.approx(60 / 30.05 - 1, rel=1e-6)
    assert grown.clear
    gone, new = rows["leaked", "mptcp"], rows["stall", "mptcp"]
    assert (gone.second, gone.change, gone.clear) == (None, None, False)
    assert (new.first, new.as_dict()["second"]) == (None, [0, 0, 0, 2])


# -- verdicts ------------------------------------------------------------------------------------


def verdicts(case: UseCase[Any], *bundles: Bundle) -> dict[str, str]:
    return {each.claim.id: str(each.verdict) for each in judge(Results(case, bundles))}


def test_claims_are_judged_from_the_records_alone(whole: Bundle) -> None:
    judged = {each.claim.id: each.verdict for each in judge(Results(tiny(), [whole]))}
    assert judged == {
        "leak": Verdict.holds("0 bytes in 2 trials"),
        "faster": Verdict.holds("2.99 times"),
        "stall": Verdict.not_measurable(
            "no complete trial of variant trusted has values of 'stall'"
        ),
    }


def test_a_claim_that_the_records_speak_against_does_not_hold(tmp_path: Path) -> None:
    def leaking(trial: Trial, folder: Path) -> Answer:
        record = Recorder(folder, trial)
        record.result("leaked", 7, "B")
        record.result("mean goodput", 1, "bit/s")
        record.close()
        return done()

    found = judge(Results(tiny(), [told(tmp_path, leaking, repeats=1)]))
    assert found[0].verdict == Verdict.fails("7 bytes in 1 trials")
    assert found[0].as_dict() == {
        "id": "leak", "statement": "Nothing leaks", "source": "D0.0 1",
        "verdict": "does not hold", "measured": "7 bytes in 1 trials",
    }  # fmt: skip


def test_a_judge_that_fails_is_named(whole: Bundle) -> None:
    case = with_items(Claim("odd", "x", "y", lambda _results: Verdict.of(1 / 0 > 1, "")))
    with pytest.raises(ExperimentError, match="claim odd of tiny cannot be judged: ZeroDivisionEr"):
        judge(Results(case, [whole]))


def test_claims_and_figures_about_some_variants_wait_until_one_of_them_is_tried(
    tmp_path: Path,
) -> None:
    def fine(_results: Results) -> Verdict:
        return Verdict.holds("yes")

    def draw(_results: Results, canvas: Any) -> None:
        canvas.subplots().plot([1, 2])

    case = with_items(
        Claim("all", "x", "y", fine),
        Claim("one", "x", "y", fine, variants=("mptcp",)),
        Claim("two", "x", "y", fine, variants=("trusted", "lte-only")),
        Claim("lacks", "x", "y", lambda r: Verdict.of(r.values("z").max() > 0, ""),
              variants=("mptcp",)),
        Figure("everything", "x", "y", draw),
        Figure("some", "x", "y", draw, variants=("trusted",)),
    )  # fmt: skip
    tried = {
        names: study(case, [told(tmp_path / "-".join(names), repeats=1, variants=names)])
        for names in (("mptcp",), ("lte-only",), ("trusted", "mptcp"))
    }
    asked = {names: [each.claim.id for each in found.judged] for names, found in tried.items()}
    assert asked == {
        ("mptcp",): ["all", "one", "lacks"],
        ("lte-only",): ["all", "two"],
        ("trusted", "mptcp"): ["all", "one", "two", "lacks"],
    }
    drawn = {names: [each.figure.id for each in found.drawn] for names, found in tried.items()}
    assert drawn == {
        ("mptcp",): ["everything"],
        ("lte-only",): ["everything"],
        ("trusted", "mptcp"): ["everything", "some"],
    }
    # tried without success is tried: the claim is asked, and says that it cannot be judged
    failed = told(tmp_path / "failed", lambda *_: error("no"), repeats=1, variants=["mptcp"])
    assert verdicts(case, failed)["lacks"] == "not measurable here: there are no records"
    # over several bundles, whatever one of them tried
    both = [
        told(tmp_path / f"b{name}", repeats=1, variants=[name]) for name in ("mptcp", "trusted")
    ]
    assert list(verdicts(case, *both)) == ["all", "one", "two", "lacks"]


def test_a_claim_about_a_variant_that_there_is_not_is_a_mistake_of_its_author() -> None:
    """Every use case here names variants it has."""
    from testbed.run.discovery import all_use_cases

    cases, broken_ones = all_use_cases()
    assert broken_ones == []
    for case in cases:
        for item in (*case.claims, *case.figures):
            assert set(item.variants) <= set(case.variants), (case.name, item.id)


# -- figures and the page ------------------------------------------------------------------------


def test_a_run_is_published_into_its_folder(tmp_path: Path) -> None:
    bundle = told(tmp_path, repeats=2)
    found = publish(tiny(), bundle)
    assert [path.relative_to(bundle.path) for path in found.figures] == [
        Path("figures/goodput.svg"), Path("figures/bars.svg"),
    ]  # fmt: skip
    for path in found.figures:
        assert path.read_text().startswith("<?xml")
        assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
        assert "not certified" not in path.read_text()
    assert [v["verdict"] for v in Bundle.open(bundle.path).run["verdicts"]] == [
        "holds", "holds",
        "not measurable here: no complete trial of variant trusted has values of 'stall'",
    ]  # fmt: skip
    page = (bundle.path / "report.html").read_text()
    for said in ("A tiny use case", "2 of 3 claims hold", "Nothing leaks", "0 bytes in 2 trials",
                 ">certified<", ">complete<", bundle.run["id"],
                 "sensitive bytes over LTE alone"):  # fmt: skip
        assert said in page
    assert page.count("<svg") == 2
    assert not re.search(r'(?:src|href)="(?!#)', page.replace("xlink:href", "href"))  # no fetching


def test_the_same_records_give_the_same_figures(whole: Bundle) -> None:
    one, two = study(tiny(), [whole]), study(tiny(), [whole])
    assert [each.svg for each in one.drawn] == [each.svg for each in two.drawn]


def test_doubts_are_stamped_on_figures_and_said_on_the_page(tmp_path: Path) -> None:
    def late(trial: Trial, folder: Path) -> Answer:
        broken_answer = broken(trial, folder)
        return broken_answer if broken_answer["kind"] == "error" else done(
            certified=False, why="packets left late"
        )  # fmt: skip

    bundle = told(tmp_path, late, repeats=2)
    found = publish(tiny(), bundle)
    for path in found.figures:
        assert "not certified: lte-only repeat 1: packets left late" in path.read_text()
    page = (bundle.path / "report.html").read_text()
    assert "<b>Not certified:</b> lte-only repeat 1: packets left late [5 of 5 trials]" in page
    assert "<b>Incomplete:</b> 1 of 6 trials failed: mptcp repeat 2: it broke" in page
    assert "1 of 2" in page


def test_a_figure_that_lacks_data_is_said_to_be_missing_and_the_others_are_drawn(
    tmp_path: Path,
) -> None:
    bundle = told(tmp_path, repeats=1, variants=["trusted"])

    def lacking(results: Results, _canvas: Any) -> None:
        results.samples("stall")

    found = publish(
        with_items(Figure("lacking", "Stalls", "Of video.", lacking), *tiny().figures), bundle
    )
    assert [(each.figure.id, bool(each.missing)) for each in found.drawn] == [
        ("lacking", True), ("goodput", False), ("bars", False),
    ]  # fmt: skip
    assert sorted(path.name for path in (bundle.path / "figures").iterdir()) == [
        "bars.png", "bars.svg", "goodput.png", "goodput.svg",
    ]  # fmt: skip
    page = (bundle.path / "report.html").read_text()
    assert "Not drawn: no complete trial has values of &#39;stall&#39;" in page


def test_a_figure_whose_drawing_fails_is_named(whole: Bundle) -> None:
    case = with_items(Figure("odd", "x", "y", lambda _results, _canvas: [][0]))
    with pytest.raises(ExperimentError, match="figure odd of tiny cannot be drawn: IndexError"):
        study(case, [whole])


def test_what_is_written_on_the_page_is_text_and_not_markup(tmp_path: Path) -> None:
    case = with_items(Claim("x", "<script>alert(1)</script>", "a & b", lambda _r: Verdict.holds(
        "<b>1</b>")))  # fmt: skip
    bundle = told(tmp_path, repeats=1)
    publish(case, bundle)
    page = (bundle.path / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;1&lt;/b&gt;" in page


# -- what figures are drawn with -----------------------------------------------------------------


def drawn(results: Results, draw: Any) -> Any:
    """The axes that a figure's function drew on."""
    kept: list[Any] = []

    def keep(found: Results, canvas: Any) -> None:
        kept.append(canvas.subplots())
        draw(kept[0], found)

    from testbed.report.figures import draw as draw_figure

    assert draw_figure(Figure("f", "t", "c", keep), results).svg
    return kept[0]


def test_bands_have_a_line_a_variant_in_its_own_look(results: Results) -> None:
    from testbed.report import figures

    axes = drawn(results, lambda axes, r: figures.band(axes, r, "goodput", bin_s=0.1, scale=1e-6))
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["lte-only", "mptcp", "trusted"]
    assert list(lines["mptcp"].get_ydata()) == pytest.approx([30.05] * 10)
    assert list(lines["mptcp"].get_xdata())[:2] == pytest.approx([0.05, 0.15])
    assert lines["mptcp"].get_color() == results.look("mptcp").colour
    assert len({line.get_color() for line in lines.values()}) == 3
    one = drawn(results, lambda axes, r: figures.band(axes, r, "goodput", variants=("mptcp",)))
    assert [line.get_color() for line in one.lines] == [results.look("mptcp").colour]


def test_bars_stand_at_the_mean_with_a_dot_a_trial(results: Results) -> None:
    from testbed.report import figures

    axes = drawn(results, lambda axes, r: figures.bars(axes, r, "mean goodput", scale=1e-6))
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([10.05, 30.05, 14.05])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["lte-only", "mptcp", "trusted"]
    assert axes.get_ylim()[0] == 0


def test_distributions_end_at_one(results: Results) -> None:
    from testbed.report import figures

    axes = drawn(results, lambda axes, r: figures.cdf(axes, r, "goodput"))
    for line in axes.lines:
        shares = list(line.get_ydata())
        assert (shares[0], shares[-1]) == (0, 1)
        assert shares == sorted(shares)


def test_against_a_parameter_needs_several_values_of_it(tmp_path: Path, whole: Bundle) -> None:
    from testbed.report import figures

    def draw(axes: Any, found: Results) -> None:
        figures.against(axes, found, "mean goodput", "wifi.bw", scale=1e-6)

    other = told(tmp_path, repeats=1, changes={"wifi.bw": 5})
    axes = drawn(Results(tiny(), [whole, other]), draw)
    assert axes.get_xlabel() == "wifi.bw (Mb/s)"
    mptcp = next(c for c in axes.containers if c.get_label() == "mptcp")
    assert list(mptcp.lines[0].get_xdata()) == [5, 20]
    assert list(mptcp.lines[0].get_ydata()) == pytest.approx([30, 30.05])
    with pytest.raises(MissingData, match=r"several values of wifi\.bw \(testbed sweep makes them"):
        draw(None, Results(tiny(), [whole]))


def test_estimates_of_one_trial_have_no_interval(tmp_path: Path) -> None:
    found = Results(tiny(), [told(tmp_path, repeats=1)]).mean("leaked", variant="mptcp")
    assert dataclasses.astuple(found) == (62_000, 62_000, 62_000, 1)
    assert str(found) == "6.2e+04 (1 trial)"
    assert math.isclose(found.half_width, 0)
