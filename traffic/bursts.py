"""On/off bursts with Pareto periods over TCP or MPTCP, from any number of sources.

    python -m traffic.bursts server [--port 5001] [--mptcp]     (the same as traffic.bulk's)
    python -m traffic.bursts client HOST --rate 2M [--on 1] [--off 2] [--sources 4]

Each source is a connection of its own; what "on" and "off" mean is in `traffic.sources`.  The
rate is that of the application: a link that is too slow makes bursts last longer.
"""

from __future__ import annotations

import argparse

from traffic import bulk, sockets
from traffic.emit import clock
from traffic.meter import Meter
from traffic.program import Life, Parser, Results, Stopped, Task, amount, run, whole
from traffic.sources import Source
from traffic.streams import Outcome, Stream

_TIMES = (
    ("duration", 10.0, "of the whole"),
    ("on", 1.0, "mean on period"),
    ("off", 1.0, "mean off period"),
)


def parser() -> argparse.ArgumentParser:
    """Arguments of the program."""
    top = Parser(prog="traffic.bursts", description=__doc__.splitlines()[0] if __doc__ else "")
    roles = top.add_subparsers(dest="role", required=True)
    server = roles.add_parser("server", help="serve until told to stop")
    server.add_argument("--once", action="store_true", help="serve one connection, then end")
    client = roles.add_parser("client", help="on/off sources")
    client.add_argument("host", metavar="HOST", help="the server's address")
    for name, default, what in _TIMES:
        client.add_argument(
            f"--{name}", type=amount, default=default, metavar="S", help=f"{what}; {default:g} s"
        )
    client.add_argument("--rate", type=amount, default=2e6, metavar="BPS", help="while on: 2M")
    client.add_argument("--alpha", type=_alpha, default=1.5, help="Pareto shape (default: 1.5)")
    client.add_argument("--sources", type=whole, default=1, help="connections (default: 1)")
    bulk.add_client_arguments(client)
    for role in (server, client):
        bulk.add_common_arguments(role)
    return top


def _alpha(text: str) -> float:
    value = amount(text)
    if value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: a Pareto period has a mean only above 1")
    return value


def main(options: argparse.Namespace, life: Life) -> Results:
    """Be the sources, or the server."""
    if options.role == "server":
        return bulk.serve(options, life)
    transport = sockets.from_options(options)
    meter = Meter(life.emit)
    streams = []
    for _ in range(options.sources):
        sock = life.track(transport.connect(options.host, options.port))
        streams.append(Stream(life, sock, meter, options.silence))
    life.emit.ready(sources=len(streams))
    start = clock()
    tasks = [
        Task(_run, stream, _source(options, number), options.direction)
        for number, stream in enumerate(streams)
    ]
    return _summary([task.join() for task in tasks], clock() - start)


def _source(options: argparse.Namespace, number: int) -> Source:
    return Source(
        duration_s=options.duration,
        rate_bps=options.rate,
        on_s=options.on,
        off_s=options.off,
        alpha=options.alpha,
        seed=options.seed * 1000 + number,
        mark=options.mark,
    )


def _run(stream: Stream, source: Source, direction: str) -> Outcome | None:
    silent = Source(seed=source.seed)
    try:
        return stream.ask(
            source if direction in ("up", "both") else silent,
            source if direction in ("down", "both") else silent,
        )
    except Stopped:
        return None


def _summary(outcomes: list[Outcome | None], elapsed: float) -> Results:
    complete = [outcome for outcome in outcomes if outcome is not None]
    return {
        "elapsed": elapsed,
        "sources": len(outcomes),
        "intact": len(complete) == len(outcomes),
        "bytes_sent": sum(outcome.sent.total for outcome in complete),
        "bytes_received": sum(outcome.received.total for outcome in complete),
    }


if __name__ == "__main__":
    run(parser(), main)
