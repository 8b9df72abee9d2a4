"""Trials of trusted pooling with real packets, short ones; and its claims and figures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import ExperimentError
from testbed.run import Recorder, Trial
from testbed.run.trial import Conductor
from usecases.trusted_pooling import TrustedPooling
from usecases.trusted_pooling.capture import read
from usecases.trusted_pooling.plan import OUTAGE, PHASES, Plan, WebPlan
from usecases.trusted_pooling.policy import Interface
from usecases.trusted_pooling.sniffer import Sniffer, count_frames
from usecases.trusted_pooling.trust import load

SHORT = {
    **TrustedPooling.quick,
    "web.sites": 2,
    "https_share": 0.34,
    "video.duration": 0.6,
    "video.beat": 0.1,
    "live.other": 300,
    "outage.duration": 0.4,
}
Values = dict[tuple[str, str], float]


def trial(folder: Path, variant: str, **changes: Any) -> Values:
    """Run one trial here; its results by (metric, source)."""
    from pyarrow import parquet

    params = TrustedPooling.Parameters().changed({**SHORT, **changes})
    record = Recorder(folder, Trial(variant=variant, repeat=0, seed=7))
    try:
        Conductor(TrustedPooling(), params, record, lambda **_message: None).conduct()
    finally:
        record.close()
    rows = parquet.read_table(record.series_path).to_pylist()
    return {(r["metric"], r["source"]): r["value"] for r in rows if r["time_s"] is None}


def total(values: Values, metric: str) -> float:
    return sum(value for (name, _source), value in values.items() if name == metric)


def check_sound(values: Values) -> None:
    """The workload ran, every captured byte is accounted for, and the two counts agree."""
    assert all(values["sensitive_sent", phase] > 0 for phase in PHASES)
    assert values["unaccounted", ""] == 0
    live = ("upload", "download", "outage")
    assert values["live_marked", ""] == sum(values["leaked_crossings", each] for each in live)
    assert total(values, "leaked") <= total(values, "leaked_crossings")
    assert values["other_goodput", ""] > 0


@pytest.mark.live
def test_nothing_leaks_and_the_sensitive_stream_waits(tmp_path: Path) -> None:
    values = trial(tmp_path, "trusted")
    check_sound(values)
    assert total(values, "leaked") == total(values, "emitted") == values["marked", ""] == 0
    assert values["cookies_stolen", ""] == values["logins_stolen", ""] == 0
    assert values["captured", ""] > 0
    assert values["stall", ""] > 0.9 * SHORT["outage.duration"]


@pytest.mark.live
def test_nothing_leaks_where_packets_are_lost(tmp_path: Path) -> None:
    changes = {"wifi.loss": 2, "lte.loss": 2, "live.periods": 2, "live.other": 150}
    values = trial(tmp_path, "trusted", **changes)
    check_sound(values)
    assert total(values, "leaked") == total(values, "emitted") == values["marked", ""] == 0


@pytest.mark.live
def test_plain_mptcp_leaks_and_the_attacker_reads(tmp_path: Path) -> None:
    values = trial(tmp_path, "mptcp", keep_captures=True)
    check_sound(values)
    assert total(values, "leaked") > 0
    assert values["leaked", OUTAGE] > 0
    assert values["logins_stolen", ""] > 0
    assert values["cookies_stolen", ""] > 0
    captures = list((tmp_path / "pcap").iterdir())
    assert len(captures) == 2
    assert all(any(read(path)) for path in captures)


@pytest.mark.live
def test_wifi_alone_gives_everything_away(tmp_path: Path) -> None:
    values = trial(tmp_path, "wifi-only")
    check_sound(values)
    assert total(values, "leaked") == total(values, "sensitive_sent")
    assert list((tmp_path / "pcap").iterdir()) == []


@pytest.mark.live
def test_lte_alone_shows_the_attacker_nothing(tmp_path: Path) -> None:
    values = trial(tmp_path, "lte-only")
    check_sound(values)
    assert values["captured", ""] == 0
    assert values["captured_readable", ""] == 0


@pytest.mark.live
def test_a_capture_is_complete_or_the_trial_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from testbed.network import Network
    from topologies.mobile import Mobile
    from usecases.trusted_pooling import sniffer as module

    async def capture(net: Any) -> None:
        record = Recorder(tmp_path, Trial(variant="v", repeat=0, seed=1))
        try:
            sniffer = await Sniffer.start(net["ap"], "wlan", record, name="x")
            net["phone"].cmd("ping -c 3 -i 0.01 -I wifi server1")
            path = await sniffer.stop()
            assert count_frames(path) >= 6
            sniffer = await Sniffer.start(net["ap"], "wlan", record, name="y")
            sniffer._before -= 1  # as if one frame had not been captured
            monkeypatch.setattr(module, "_COMPLETE_S", 0.2)
            with pytest.raises(ExperimentError, match="holds 0 of 1 frames"):
                await sniffer.stop()
            await sniffer.kill()
        finally:
            record.close()

    with Network(Mobile()) as net:
        asyncio.run(capture(net))


def test_a_plan_survives_the_command_line() -> None:
    kinds = load()
    interfaces = (
        Interface("wifi", "10.0.0.2", kinds["wifi-open"]),
        Interface("lte", "10.0.1.2", kinds["4g"]),
    )
    web = WebPlan(seed=3, sites=4, https_share=0.5, requests=5, weight=0.1)
    plan = Plan(
        managed=True, interfaces=interfaces, server="10.0.2.2", authority="c.pem",
        congestion="reno", seed=3, web=web, video_s=1, beat_s=0.1, periods=1, other=10,
        sensitive=10, outage_rate_bps=1e6, outage_before_s=0.1, outage_after_s=0.1,
    )  # fmt: skip
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("share", [0.0, 0.38, 0.45, 1.0])
def test_the_share_of_sites_behind_tls_is_what_was_asked_for(share: float) -> None:
    web = WebPlan(seed=1, sites=19, https_share=share, requests=5, weight=0.1)
    assert sum(site.https for site in web.web.all_sites) == round(share * 20)
    assert web.chat.https is (share == 1.0)
    assert len(web.visited) == 19
