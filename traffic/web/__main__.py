"""The web's two ends as programs.

    python -m traffic.web server [--port 8080] [--tls-port 8443] [--sites 10] [--https 0.38]
    python -m traffic.web client HOST [--pages N | --duration S] [--think S]

Both take the same description of the web (--seed, --sites, ...).  The client visits pages one
after the other, logs in to each site that has logins before its first page, and reports page
load times (from the first request to the last byte of the last object) and goodput.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import statistics
from pathlib import Path

from testbed.errors import ParameterError
from traffic import sockets
from traffic.emit import clock
from traffic.program import Life, Parser, Results, Stopped, amount, port, run, whole
from traffic.web.browser import PER_HOST, Browser, Need, PageLoad
from traffic.web.server import Answers, Server
from traffic.web.site import Site, Web

_PORT, _TLS_PORT = 8080, 8443


def parser() -> argparse.ArgumentParser:
    """Arguments of the program."""
    top = Parser(prog="traffic.web", description="HTTP/1.1 sites, and a browser that visits them.")
    roles = top.add_subparsers(dest="role", required=True)
    server = roles.add_parser("server", help="serve the sites until told to stop")
    server.add_argument("--certificate", type=Path, metavar="FILE", help="write it there (PEM)")
    client = roles.add_parser("client", help="visit pages")
    client.add_argument("host", metavar="HOST", help="the server's address")
    _client_arguments(client)
    for role in (server, client):
        role.add_argument("--port", type=port, default=_PORT, help=f"default: {_PORT}")
        role.add_argument("--tls-port", type=port, default=_TLS_PORT, help=f"default: {_TLS_PORT}")
        _web_arguments(role)
        sockets.add_arguments(role)
    return top


def _client_arguments(client: argparse.ArgumentParser) -> None:
    length = client.add_mutually_exclusive_group()
    length.add_argument("--visits", type=whole, default=5, metavar="N", help="default: 5 pages")
    length.add_argument("--duration", type=amount, metavar="S", help="instead: visit for S seconds")
    client.add_argument("--think", type=amount, metavar="S", help="mean pause (exponential)")
    client.add_argument("--connections", type=whole, default=PER_HOST, help="per host: 6")
    client.add_argument("--walk", type=int, default=1, help="seed of the order of visits")
    client.add_argument("--certificate", type=Path, metavar="FILE", help="trust only this (PEM)")


def _web_arguments(role: argparse.ArgumentParser) -> None:
    web = Web()
    role.add_argument("--seed", type=int, default=web.seed, help="of the sites")
    role.add_argument("--sites", type=whole, default=web.sites)
    role.add_argument("--pages", type=whole, default=web.pages, help="of each site")
    role.add_argument("--https", type=float, default=web.https, help="share of sites with TLS")
    role.add_argument("--logins", type=float, default=web.logins, help="share with logins")
    role.add_argument("--weight", type=amount, default=web.weight, help="factor on all sizes")
    role.add_argument("--requests", type=amount, default=web.requests, help="of a median page")


def web_of(options: argparse.Namespace) -> Web:
    """The web that parsed options describe."""
    return Web(
        seed=options.seed,
        sites=options.sites,
        pages=options.pages,
        https=options.https,
        logins=options.logins,
        weight=options.weight,
        requests=options.requests,
    )


def main(options: argparse.Namespace, life: Life) -> Results:
    """Be the server or the browser."""
    web = web_of(options)
    return _serve(options, life, web) if options.role == "server" else _visit(options, life, web)


# -- server --------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace, life: Life, web: Web) -> Results:
    transport = sockets.from_options(options)
    clear, tls, context = transport.listen(options.port), None, None
    if any(site.https for site in web.all_sites):
        from traffic.web.tls import certificate, server_context

        names = [name for site in web.all_sites for name in (site.host, site.static_host)]
        chain, key = certificate(names)
        context = server_context(chain, key)
        tls = transport.listen(options.tls_port)
        if options.certificate:
            options.certificate.write_bytes(chain)
    life.emit.ready(port=clear.getsockname()[1], tls_port=tls.getsockname()[1] if tls else None)
    server = Server(life, Answers(web).answer, context)
    server.serve(clear, tls)
    return {
        "requests": server.requests,
        "bytes_sent": server.bytes_sent,
        "bytes_received": server.bytes_received,
        "failed": server.failed,
    }


# -- client --------------------------------------------------------------------------------------


def _visit(options: argparse.Namespace, life: Life, web: Web) -> Results:
    transport = sockets.from_options(options)
    context = None
    if web.https:
        from traffic.web.tls import client_context

        context = client_context(_read(options.certificate))

    def connect(need: Need) -> socket.socket:
        return transport.connect(options.host, options.tls_port if need.https else options.port)

    browser = Browser(life, connect, per_pool=options.connections, tls=context)
    life.emit.ready()
    loads: list[PageLoad] = []
    with contextlib.suppress(Stopped):  # what was loaded is reported
        _walk(options, life, web, browser, loads)
    browser.close()
    return _summary(loads)


def _read(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise ParameterError(f"--certificate {path}: {error.strerror}") from error


def _walk(
    options: argparse.Namespace, life: Life, web: Web, browser: Browser, loads: list[PageLoad]
) -> None:
    end = clock() + options.duration if options.duration else float("inf")
    pauses = random.Random(f"{options.seed}/think/{options.walk}")
    for site, number in web.visits(options.walk):
        if clock() >= end or (not options.duration and len(loads) >= options.visits):
            return
        if site.login and site.host not in browser.cookies:
            browser.login(site)
            life.emit.event("login", site=site.host, https=site.https)
        loads.append(browser.load(site, number))
        _tell(life, site, loads[-1])
        if options.think:
            life.sleep(pauses.expovariate(1 / options.think))


def _tell(life: Life, site: Site, load: PageLoad) -> None:
    life.emit.sample("page_load_time", load.seconds, "s", time_s=load.start_s + load.seconds)
    life.emit.event(
        "page",
        site=site.host,
        path=load.path,
        https=site.https,
        seconds=load.seconds,
        requests=len(load.exchanges),
        bytes=load.bytes,
        sensitive_bytes=load.sensitive_bytes,
    )


def _summary(loads: list[PageLoad]) -> Results:
    times = [load.seconds for load in loads]
    return {
        "pages": len(loads),
        "requests": sum(len(load.exchanges) for load in loads),
        "bytes_received": sum(load.bytes for load in loads),
        "sensitive_bytes": sum(load.sensitive_bytes for load in loads),
        "page_load_time_median": statistics.median(times) if times else None,
        "page_load_time_max": max(times, default=None),
    }


if __name__ == "__main__":
    run(parser(), main)
