"""What the phone is told to do in one trial: everything its program needs, as one JSON text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from usecases.trusted_pooling.policy import Interface
from usecases.trusted_pooling.trust import InterfaceKind

BROWSING, VIDEO, UPLOAD, DOWNLOAD, OUTAGE = "browsing", "video", "upload", "download", "outage"
PHASES = (BROWSING, VIDEO, UPLOAD, DOWNLOAD, OUTAGE)
OUTAGE_DUE = "outage-due"  # the phone's event at which the experiment cuts the trusted path


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One trial of the phone; sizes in bytes, times in seconds, rates in bit/s.

    `managed` is the connection manager with the trust table; without it connections start from
    the first of `interfaces`.
    """

    managed: bool
    interfaces: tuple[Interface, ...]
    server: str
    authority: str
    congestion: str
    seed: int
    sites: int
    https_share: float
    objects: int
    object_size: int
    video_s: float
    beat_s: float
    periods: int
    other: int
    sensitive: int
    outage_rate_bps: float
    outage_before_s: float
    outage_after_s: float

    def to_json(self) -> str:
        """As text for the command line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Back from text."""
        fields = json.loads(text)
        fields["interfaces"] = tuple(_interface(each) for each in fields["interfaces"])
        return cls(**fields)


def _interface(fields: Mapping[str, object]) -> Interface:
    kind = fields["kind"]
    assert isinstance(kind, Mapping)
    return Interface(str(fields["name"]), str(fields["address"]), InterfaceKind(**kind))
