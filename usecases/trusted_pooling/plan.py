"""What the phone and the server are told to do in one trial, as JSON texts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from traffic.web.site import Site, Web
from usecases.trusted_pooling.policy import Interface
from usecases.trusted_pooling.trust import InterfaceKind

BROWSING, VIDEO, UPLOAD, DOWNLOAD, OUTAGE = "browsing", "video", "upload", "download", "outage"
PHASES = (BROWSING, VIDEO, UPLOAD, DOWNLOAD, OUTAGE)
OUTAGE_DUE = "outage-due"  # the phone's event at which the experiment cuts the trusted path
HTTP_PORT, HTTPS_PORT, LIVE_PORT = 80, 443, 7000


@dataclass(frozen=True, kw_only=True)
class WebPlan:
    """The web of a trial: `sites` to visit and one more, in the clear if any is, to chat on."""

    seed: int
    sites: int
    https_share: float
    requests: float
    weight: float

    @property
    def web(self) -> Web:
        """The sites as `traffic.web` knows them."""
        return Web(
            seed=self.seed,
            sites=self.sites + 1,
            pages=1,
            https=self.https_share,
            weight=self.weight,
            requests=self.requests,
        )

    @property
    def chat(self) -> Site:
        """The site that the chat is on."""
        every = self.web.all_sites
        return next((site for site in reversed(every) if not site.https), every[-1])

    @property
    def visited(self) -> list[Site]:
        """The sites that are visited, in order."""
        return [site for site in self.web.all_sites if site.host != self.chat.host]

    @property
    def hosts(self) -> list[str]:
        """Names of all hosts of the web."""
        return [host for site in self.web.all_sites for host in (site.host, site.static_host)]

    def to_json(self) -> str:
        """As text for the command line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WebPlan:
        """Back from text."""
        return cls(**json.loads(text))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One trial of the phone; sizes in bytes, times in seconds, rates in bit/s.

    `managed` is the connection manager with the trust table; without it connections start from
    the first of `interfaces`.  `authority` is a PEM file: the sites' certificate.
    """

    managed: bool
    interfaces: tuple[Interface, ...]
    server: str
    authority: str
    congestion: str
    seed: int
    web: WebPlan
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
        fields["web"] = WebPlan(**fields["web"])
        return cls(**fields)


def _interface(fields: Mapping[str, object]) -> Interface:
    kind = fields["kind"]
    assert isinstance(kind, Mapping)
    return Interface(str(fields["name"]), str(fields["address"]), InterfaceKind(**kind))
