"""The migrating machine's journey, what its viewer sees, its claims and figures."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from vm_migration_records import COURSES, Film, results

from testbed.errors import ParameterError
from testbed.report import figures
from testbed.run import Claim
from usecases.vm_migration import VmMigration
from usecases.vm_migration.claims import CLAIMS
from usecases.vm_migration.figures import FIGURES
from usecases.vm_migration.journey import (
    BACK,
    LOAD,
    MIGRATE_MPTCP,
    MIGRATE_TCP,
    OUT,
    VARIANTS,
    journey,
)
from usecases.vm_migration.viewing import Viewing


def test_the_tool_makes_the_whole_journey_and_the_others_its_first_move() -> None:
    assert journey(MIGRATE_MPTCP, scenario="both", once=True) == (OUT, BACK, LOAD)
    assert journey(MIGRATE_TCP, scenario="both", once=True) == (OUT,)
    assert journey(MIGRATE_TCP, scenario="network", once=False) == (OUT, BACK)
    assert all(journey(each, scenario="cpu", once=True) == (LOAD,) for each in VARIANTS)


@pytest.mark.parametrize("scenario", ["network", "cpu", "both"])
def test_a_journey_goes_on_where_the_last_move_ended(scenario: str) -> None:
    legs = journey(MIGRATE_MPTCP, scenario=scenario, once=False)
    for earlier, later in pairwise(legs):
        assert earlier.target == later.source


def test_a_display_that_is_none_is_refused_before_anything_starts() -> None:
    params = VmMigration.Parameters().changed({"machine.tablet_display": "large"})
    with pytest.raises(ParameterError, match=r"machine\.tablet_display = 'large'"):
        VmMigration().topology(params)


def test_a_picture_that_goes_on_has_neither_stalled_nor_missed_anything() -> None:
    film = Film()
    film.play(10)
    seen = Viewing(film.reports)
    assert seen.stall_s(2, 8) == pytest.approx(0, abs=0.01)
    assert seen.missed_s(2, 8) == seen.backwards_s(2, 8) == 0
    assert seen.rate("frames", 2, 8) == pytest.approx(15, rel=0.02)


@pytest.mark.parametrize("told", [True, False])
def test_a_picture_that_stands_still_is_a_stall_also_when_nobody_tells(told: bool) -> None:
    film = Film()
    film.play(3)
    film.stand_still(2, told=told)
    film.play(3)
    seen = Viewing(film.reports)
    assert seen.stall_s(1, 7) == pytest.approx(2, abs=0.15)
    assert seen.freeze_s(1, 7) == pytest.approx(2, abs=0.15)
    assert seen.missed_s(1, 7) == 0


def test_late_reports_are_no_stall() -> None:
    film = Film()
    film.play(6)
    late = [film.reports[0], film.reports[9], *film.reports[20:]]
    assert Viewing(late).stall_s(0, 6) == pytest.approx(0, abs=0.01)


def test_reports_that_are_held_up_are_neither_a_stall_nor_a_jump() -> None:
    film = Film()
    film.play(6)
    held = [replace(r, time_s=max(r.time_s, 3.5)) if r.time_s > 2 else r for r in film.reports]
    seen = Viewing(held)
    assert seen.stall_s(0, 6) == pytest.approx(0, abs=0.01)
    assert seen.missed_s(0, 6) == 0


def test_a_jump_ahead_is_what_was_missed() -> None:
    film = Film()
    film.play(3)
    film.position += 4
    film.play(3)
    seen = Viewing(film.reports)
    assert seen.missed_s(1, 5) == pytest.approx(4, abs=0.01)
    assert seen.stall_s(1, 5) == pytest.approx(0, abs=0.01)


def test_a_new_player_has_missed_what_went_on_without_it() -> None:
    film = Film()
    film.play(3)
    film.stand_still(5)
    film.begin_anew(5)
    film.play(3)
    seen = Viewing(film.reports)
    assert seen.missed_s(1, 10) == pytest.approx(5, abs=0.15)
    assert seen.stall_s(1, 10) == pytest.approx(5, abs=0.15)
    assert not seen.survived(3, 10)


def test_a_position_that_goes_back_is_told() -> None:
    film = Film()
    film.play(3)
    film.position -= 1.5
    film.play(3)
    assert Viewing(film.reports).backwards_s(1, 5) == pytest.approx(1.4, abs=0.01)


def test_a_connection_survives_if_it_brings_new_bytes_and_is_the_only_one() -> None:
    film = Film()
    film.play(3)
    film.stand_still(1)
    film.play(3)
    assert Viewing(film.reports).survived(3.05, 7)
    film.opened = 2
    film.play(1)
    assert not Viewing(film.reports).survived(3.05, 8)


def test_a_connection_without_a_byte_has_not_survived() -> None:
    film = Film()
    film.play(3)
    film.stand_still(4, told=True)
    seen = Viewing(film.reports)
    assert not seen.survived(3.05, 7)
    assert not seen.playing(7)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> object:
    return results(tmp_path_factory.mktemp("good"), quick=True)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> object:
    return results(tmp_path_factory.mktemp("spoilt"), spoilt=True, quick=True)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_claims_hold_where_they_should_and_fail_where_they_should(
    claim: Claim, good: object, spoilt: object
) -> None:
    held, failed = claim.judge(good), claim.judge(spoilt)  # type: ignore[arg-type]
    assert held.outcome == "holds", held.measured
    assert failed.outcome == "does not hold", failed.measured


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.id)
def test_every_figure_is_drawn(figure: object, good: object) -> None:
    drawn = figures.draw(figure, good)  # type: ignore[arg-type]
    assert not drawn.missing
    assert drawn.png.startswith(b"\x89PNG")


def test_all_variants_are_made_up_here() -> None:
    assert set(COURSES) == set(VmMigration.variants)
