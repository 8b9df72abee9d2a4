"""Trusted resource pooling (D3.1 2.3): every path for the public, trusted paths for the rest.

This is the use case as the testbed sees it: topology, one trial, and where its claims and figures
are.  The phone and the servers are programs of their own (`phone`, `server`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed.errors import ParameterError
from testbed.run import NodeProcess, Recorder, UseCase
from traffic.web import tls
from usecases.trusted_pooling import evaluation
from usecases.trusted_pooling.claims import CLAIMS
from usecases.trusted_pooling.figures import FIGURES
from usecases.trusted_pooling.leaks import Note
from usecases.trusted_pooling.parameters import TrustedPoolingParameters
from usecases.trusted_pooling.plan import OUTAGE_DUE, PHASES, Plan, WebPlan
from usecases.trusted_pooling.policy import Interface
from usecases.trusted_pooling.radio import radio_meter
from usecases.trusted_pooling.sniffer import Sniffer
from usecases.trusted_pooling.trust import TrustTable, load
from usecases.trusted_pooling.variants import VARIANTS, managed, preference, prepare

_PACKAGE = "usecases.trusted_pooling"
_PHASE_S = 120.0  # no phase takes that long unless something is broken


class TrustedPooling(UseCase[TrustedPoolingParameters]):
    """See the module's docstring."""

    name = "trusted_pooling"
    section = "D3.1 2.3"
    title = "Trusted resource pooling"
    summary = (
        "A phone pools an open WiFi and LTE with Multipath TCP, but sends logins and cookies "
        "over LTE alone; an attacker sits on the WiFi."
    )
    Parameters = TrustedPoolingParameters
    variants = VARIANTS
    quick = {  # noqa: RUF012 - the base class declares it a class variable
        "web.sites": 4,
        "web.requests": 8,
        "web.weight": 0.3,
        "video.duration": 2.0,
        "video.beat": 0.25,
        "live.periods": 1,
        "live.other": 800,
        "outage.duration": 0.8,
        "outage.before": 0.15,
        "outage.after": 0.25,
    }
    claims = CLAIMS
    figures = FIGURES

    def topology(self, params: TrustedPoolingParameters) -> Any:
        """A phone with WiFi and LTE and one server; raises `ParameterError` for a bad table."""
        from topologies.mobile import Mobile

        _kinds(params)
        return Mobile(
            wifi_bw=params.wifi.bw,
            wifi_delay=f"{params.wifi.delay}ms",
            wifi_loss=params.wifi.loss or None,
            lte_bw=params.lte.bw,
            lte_delay=f"{params.lte.delay}ms",
            lte_loss=params.lte.loss or None,
        )

    def explain(self, params: TrustedPoolingParameters) -> Sequence[tuple[str, str]]:
        """The trust table."""
        return [("Trust table (D3.1 2.3.2)", load(params.trust_table).explain())]

    async def run(self, net: Any, params: TrustedPoolingParameters, record: Recorder) -> None:
        """One trial."""
        variant = record.trial.variant
        phone, server = net["phone"], net["server1"]
        prepare(variant, phone, server)
        plan = _plan(net, params, record)
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = _certify(Path(folder), plan.web.hosts)
            sniffers = [
                await Sniffer.start(net["ap"], "wlan", record, name="access-point"),
                await Sniffer.start(phone, "wifi", record, name="phone-wifi", sent_only=True),
            ]
            argv = [sys.executable, "-m", f"{_PACKAGE}.server", plan.web.to_json()]
            argv += ["--congestion", params.congestion]
            argv += ["--certificate", str(certificate), "--key", str(key)]
            argv += ["--gated"] if managed(variant) else []
            servers = await NodeProcess.start(server, argv, record, name="server")
            await servers.ready()
            told = dataclasses.replace(plan, authority=str(certificate)).to_json()
            argv = [sys.executable, "-m", f"{_PACKAGE}.phone", told]
            terminal = await NodeProcess.start(phone, argv, record, name="phone")
            await terminal.ready()
            record.start_clock()
            with radio_meter(net, record):
                notes = await _live_through(terminal, servers, net, params, record)
        files = [await sniffer.stop() for sniffer in sniffers]
        record.progress(0.95, "judging the captures")
        findings = await asyncio.to_thread(evaluation.evaluate, files[0], files[1], notes)
        evaluation.report(findings, record)
        if not params.keep_captures:
            for path in files:
                path.unlink()


async def _live_through(
    phone: NodeProcess,
    server: NodeProcess,
    net: Any,
    params: TrustedPoolingParameters,
    record: Recorder,
) -> list[Note]:
    """Follow the phone through its phases, cut the trusted path when it is due; all notes."""
    for number, phase in enumerate(PHASES):
        await phone.event(f"{phase}-begins", _PHASE_S)
        record.progress(0.9 * number / len(PHASES), phase)
    await phone.event(OUTAGE_DUE, _PHASE_S)
    link = net["phone"].nameToIntf["lte"].link
    link.update(loss=100)
    record.event("trusted-path-fails")
    await asyncio.sleep(params.outage.duration)
    link.update(loss=params.lte.loss)
    record.event("trusted-path-returns")
    told = await phone.done(_PHASE_S)
    for metric, value, unit in told["results"]:
        record.result(metric, value, unit)
    await server.send({"command": "stop"})
    told_by_server = await server.done(_PHASE_S)
    return [Note.from_event(each) for each in (*told["notes"], *told_by_server["notes"])]


def _kinds(params: TrustedPoolingParameters) -> TrustTable:
    """The trust table, checked: the experiment needs an untrusted WiFi and a trusted LTE."""
    table = load(params.trust_table)
    for key, kind, wanted in (
        ("wifi.kind", params.wifi.kind, False),
        ("lte.kind", params.lte.kind, True),
    ):
        if table[kind].trusted is not wanted:
            suitable = [row.kind for row in table.values() if row.trusted is wanted]
            raise ParameterError(
                f"{key} = {kind} is {'not ' if wanted else ''}trusted by {table.source}",
                remedy=f"nothing can be compared then; use one of {', '.join(suitable)}",
            )
    return table


def _certify(folder: Path, hosts: Sequence[str]) -> tuple[Path, Path]:
    """Files of a certificate for the sites, made for this trial, and of its key."""
    files = folder / "certificate.pem", folder / "key.pem"
    for path, content in zip(files, tls.certificate(hosts), strict=True):
        path.write_bytes(content)
    return files


def _plan(net: Any, params: TrustedPoolingParameters, record: Recorder) -> Plan:
    table, phone = _kinds(params), net["phone"]
    wifi = Interface("wifi", str(phone.nameToIntf["wifi"].ip), table[params.wifi.kind])
    lte = Interface("lte", str(phone.nameToIntf["lte"].ip), table[params.lte.kind])
    variant, seed = record.trial.variant, record.trial.seed
    return Plan(
        managed=managed(variant),
        interfaces=preference(variant, wifi, lte),
        server=str(net["server1"].IP()),
        authority="",
        congestion=params.congestion,
        seed=seed,
        web=WebPlan(
            seed=seed,
            sites=params.web.sites,
            https_share=params.https_share,
            requests=params.web.requests,
            weight=params.web.weight,
        ),
        video_s=params.video.duration,
        beat_s=params.video.beat,
        periods=params.live.periods,
        other=round(params.live.other * 1e3),
        sensitive=round(params.live.sensitive * 1e3),
        outage_rate_bps=params.outage.rate * 1e6,
        outage_before_s=params.outage.before,
        outage_after_s=params.outage.after,
    )
