"""What the radio links deliver."""

from __future__ import annotations

from typing import Any

from testbed.observe.throughput import ThroughputMeter
from testbed.run import Recorder

_LINKS = {
    "wifi": (("phone", "wifi"), ("ap", "wlan")),
    "lte": (("phone", "lte"), ("enodeb", "radio")),
}


def radio_meter(net: Any, record: Recorder) -> ThroughputMeter:
    """Records the throughput of WiFi and LTE, both ways together, while its block runs."""
    return ThroughputMeter(
        record,
        {
            link: [net[node].nameToIntf[name] for node, name in ends]
            for link, ends in _LINKS.items()
        },
    )
