"""Parameters of the use case: the links, what is trusted, the workload."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.run import Parameters, parameter


@dataclass(frozen=True, kw_only=True)
class Wifi(Parameters):
    """The phone's WiFi."""

    bw: float = parameter(20.0, unit="Mb/s", help="rate, each way", minimum=0.5, maximum=500)
    delay: float = parameter(10.0, unit="ms", help="one-way delay", minimum=0, maximum=2000)
    loss: float = parameter(0.0, unit="%", help="packets lost, each way", minimum=0, maximum=20)
    kind: str = parameter("wifi-open", help="its row in the trust table (not trusted)")


@dataclass(frozen=True, kw_only=True)
class Lte(Parameters):
    """The phone's LTE."""

    bw: float = parameter(10.0, unit="Mb/s", help="rate, each way", minimum=0.5, maximum=500)
    delay: float = parameter(25.0, unit="ms", help="one-way delay", minimum=0, maximum=2000)
    loss: float = parameter(0.0, unit="%", help="packets lost, each way", minimum=0, maximum=20)
    kind: str = parameter("4g", help="its row in the trust table (trusted)")


@dataclass(frozen=True, kw_only=True)
class Web(Parameters):
    """The sites visited; their pages are `traffic.web`'s model of today's, scaled down."""

    sites: int = parameter(16, help="sites visited, one after the other", minimum=1, maximum=1000)
    requests: float = parameter(
        20.0, help="median number of requests of a page", minimum=1, maximum=200
    )
    weight: float = parameter(
        0.4, help="size of objects, as a share of today's mean sizes", minimum=0.01, maximum=10
    )


@dataclass(frozen=True, kw_only=True)
class Video(Parameters):
    """The video and the chat beside it."""

    duration: float = parameter(8.0, unit="s", help="how long it is watched", minimum=0.5)
    beat: float = parameter(
        0.4, unit="s", help="between a chat's requests, cookie in the clear", minimum=0.05
    )


@dataclass(frozen=True, kw_only=True)
class Live(Parameters):
    """The live connection: other and sensitive bytes in turn, up and then down."""

    periods: int = parameter(4, help="sensitive periods in each direction", minimum=1, maximum=100)
    other: float = parameter(
        1500.0, unit="KB", help="other bytes after each, and half of it before", minimum=1
    )
    sensitive: float = parameter(30.0, unit="KB", help="sensitive bytes of a period", minimum=0.1)


@dataclass(frozen=True, kw_only=True)
class Outage(Parameters):
    """The failure of the trusted path in the middle of a sensitive period."""

    duration: float = parameter(2.0, unit="s", help="how long it lasts", minimum=0.05, maximum=30)
    rate: float = parameter(2.0, unit="Mb/s", help="of the sensitive stream", minimum=0.1)
    before: float = parameter(0.4, unit="s", help="stream before the failure", minimum=0.05)
    after: float = parameter(0.6, unit="s", help="stream still to come then", minimum=0.1)


@dataclass(frozen=True, kw_only=True)
class TrustedPoolingParameters(Parameters):
    """All of them."""

    wifi: Wifi = Wifi()
    lte: Lte = Lte()
    https_share: float = parameter(
        0.38, help="share of sites behind TLS (D3.1 quotes 38% and 45%)", minimum=0, maximum=1
    )
    web: Web = Web()
    video: Video = Video()
    live: Live = Live()
    outage: Outage = Outage()
    congestion: str = parameter("reno", help="congestion control", choices=("reno", "cubic"))
    trust_table: str = parameter("", help="TOML file to use instead of the project's trust table")
    keep_captures: bool = parameter(False, help="keep the captures in the bundle")
