"""Wireshark's own dissector reads every option that a redirection puts on the wire."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mptcp_lab import Tap
from redirection_lab import Scene, flowing, whole

from testbed.mptcp.redirection.messages import Outcome
from testbed.mptcp.redirection.sampler import Sampler

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]

FIELDS = ("tcp.options.mptcp.subtype", "_ws.malformed", "tcp.checksum.status", "ip.checksum.status")


@pytest.mark.parametrize("ipv6", [False, True])
def test_what_was_sent_is_well_formed(
    ipv6: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Sampler.inject
    sent: list[bytes] = []

    def noted(self: Sampler, connection: Any, direction: Any, segment: Any) -> None:
        sent.append(segment.build())
        original(self, connection, direction, segment)

    monkeypatch.setattr(Sampler, "inject", noted)
    with Scene() as scene:
        hop, transfers = scene.hop(), scene.transfers(ipv6=ipv6)
        tap = Tap(scene.lab["client"], "to-r")
        flowing(transfers)
        report = scene.redirecting(lambda r: r.redirect(transfers.each[0].flow, hop))
        assert report.outcome is Outcome.REDIRECTED, report
        flowing(transfers)
        whole(transfers)
        tap.close()
    tap.write(tmp_path / "client.pcap")
    rows = dissected(tmp_path / "client.pcap", "tcp")
    assert not [row for row in rows if row.get("_ws.malformed")]
    header = 40 if ipv6 else 20  # routers change it: the hop limit
    ours = {packet[header:] for packet in sent}
    seen = [data for _time, data in tap.packets if data[14 + header :] in ours]
    assert seen, "nothing that was sent reached the client"
    assert {row["tcp.checksum.status"][0] for row in rows} == {"1"}  # good
    subtypes = {value for row in rows for value in row.get(FIELDS[0], [])}
    assert {"3", "5"} <= subtypes  # ADD_ADDR, MP_PRIO


def dissected(pcap: Path, condition: str) -> list[dict[str, list[str]]]:
    fields = [word for name in FIELDS for word in ("-e", name)]
    argv = ["tshark", "-r", str(pcap), "-Y", condition, "-T", "json", *fields]
    options = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    done = subprocess.run(argv + options, capture_output=True, text=True, check=True)
    return [packet["_source"]["layers"] for packet in json.loads(done.stdout)]
