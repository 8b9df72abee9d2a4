"""Sites and their pages: a model of the web, the same for the same seed.

How heavy pages are is taken from measurements:

- HTTP Archive, Web Almanac 2024, chapter "Page Weight" (median desktop page): 71 requests and
  2652 kB, of which images 18 and 1054 kB, scripts 24 and 613 kB, fonts 131 kB, style sheets
  78 kB, HTML 18 kB.  It gives no counts for the last three; theirs, and the split of what is
  left into data and media, are ours.
- The number of requests is log-normal with that median; its 90th percentile is 2.4 times the
  median (179 to 74: Web Almanac 2019, same chapter).
- Sizes are log-normal with the spread of 3GPP's and 3GPP2's HTTP model (mean 10710, standard
  deviation 25032 bytes: sigma 1.37), cut off at 2 MB as there (3GPP TR 25.892, table A.2).

A site has two hosts, as most do: its own, whose requests carry the session cookie once the user
has logged in, and a cookieless one for static objects.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from testbed.errors import ParameterError
from traffic.pattern import HIGH, LOW, block

_REQUESTS, _REQUESTS_SIGMA = 71, math.log(179 / 74) / 1.2816
_SIZE_SIGMA = math.sqrt(math.log(1 + (25032 / 10710) ** 2))
_LARGEST = 2_000_000
_MOST_REQUESTS = 300
_LEAST_TEXT = 256
_TILE = block("web", 1 << 16, LOW)
_HIGH_TILE = block("web", 1 << 16, HIGH)


class Kind(NamedTuple):
    """A kind of object: its share of a page's requests, mean bytes, and where it lives."""

    share: float
    mean: float
    suffix: str
    mime: str
    first_party: bool = False


_HTML_MEAN = 18e3
KINDS: Mapping[str, Kind] = {
    "image": Kind(18, 1054e3 / 18, "jpg", "image/jpeg"),
    "script": Kind(24, 613e3 / 24, "js", "text/javascript"),
    "style": Kind(8, 78e3 / 8, "css", "text/css"),
    "font": Kind(4, 131e3 / 4, "woff2", "font/woff2"),
    "media": Kind(6, 678e3 / 6, "mp4", "video/mp4"),
    "data": Kind(10, 80e3 / 10, "json", "application/json", first_party=True),
}


@dataclass(frozen=True, kw_only=True)
class WebObject:
    """One object of a page: where it is, and how large (bytes)."""

    host: str
    path: str
    mime: str
    size: int

    def content(self, *, sensitive: bool = False) -> bytes:
        """The object's bytes; top bit set in all of them if `sensitive`, else in none."""
        return _fill(self.host + self.path, self.size, sensitive)


def _fill(key: str, size: int, sensitive: bool) -> bytes:
    tile = _HIGH_TILE if sensitive else _TILE
    start = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=2).digest(), "big")
    return (tile[start:] + tile * (size // len(tile) + 1))[:size]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page: its HTML document (size of the file, in bytes) and the objects it refers to."""

    host: str
    path: str
    size: int
    objects: tuple[WebObject, ...]

    @property
    def weight(self) -> int:
        """Bytes of the document and all objects."""
        return self.size + sum(item.size for item in self.objects)

    def html(self, *, sensitive: bool = False) -> bytes:
        """The document: references to the objects, then text to its size (256 bytes at least)."""
        links = "".join(f'<link href="//{item.host}{item.path}">\n' for item in self.objects)
        head = f"<!doctype html><title>{self.host}{self.path}</title>\n{links}<!--".encode()
        text = max(_LEAST_TEXT, self.size - len(head) - 3)
        filling = _fill(self.path, text, sensitive)
        # the filling must not end the comment it is in
        return head + filling.replace(b"-->", b"->>") + b"-->"


@dataclass(frozen=True, kw_only=True)
class Site:
    """Site number `number` of the web of `seed`: pages, whether it has TLS and logins."""

    seed: int
    number: int
    https: bool = False
    login: bool = True
    pages: int = 10
    weight: float = 1.0
    requests: float = _REQUESTS

    @property
    def host(self) -> str:
        """Its own host's name."""
        return f"site{self.number}.example"

    @property
    def static_host(self) -> str:
        """The cookieless host's name."""
        return f"static.site{self.number}.example"

    @property
    def user(self) -> str:
        """Who logs in here."""
        return f"user{self.number}"

    @cached_property
    def password(self) -> str:
        """The user's password."""
        return self._secret("password")

    @cached_property
    def session(self) -> str:
        """The session's cookie ("session=..."), which the server sets at login."""
        return f"session={self._secret('session')}"

    @property
    def credentials(self) -> bytes:
        """Body of the login form."""
        return f"user={self.user}&password={self.password}".encode()

    def _secret(self, what: str) -> str:
        key = f"{self.seed}/{self.number}/{what}"
        return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()

    def page(self, number: int) -> Page:
        """Page `number`, counted from 0; the same at every call."""
        numbers = random.Random(f"{self.seed}/{self.number}/{number}")
        median = max(1.0, self.requests - 1)
        count = round(median * math.exp(numbers.gauss(0, _REQUESTS_SIGMA)))
        objects = tuple(
            self._object(numbers, number, index)
            for index in range(min(max(count, 1), _MOST_REQUESTS))
        )
        size = self._size(numbers, _HTML_MEAN)
        return Page(host=self.host, path=f"/p{number}/", size=size, objects=objects)

    def _object(self, numbers: random.Random, page: int, index: int) -> WebObject:
        name = numbers.choices(list(KINDS), [kind.share for kind in KINDS.values()])[0]
        kind = KINDS[name]
        return WebObject(
            host=self.host if kind.first_party else self.static_host,
            path=f"/p{page}/{name}{index}.{kind.suffix}",
            mime=kind.mime,
            size=self._size(numbers, kind.mean),
        )

    def _size(self, numbers: random.Random, mean: float) -> int:
        mu = math.log(mean) - _SIZE_SIGMA**2 / 2
        drawn = min(numbers.lognormvariate(mu, _SIZE_SIGMA), _LARGEST)
        return max(50, int(drawn * self.weight))


@dataclass(frozen=True, kw_only=True)
class Web:
    """All sites of one seed; shares are of sites (0 to 1), spread evenly over their numbers.

    `https` is the share with TLS, `logins` the share that users log in to.  `weight` scales all
    sizes, `requests` is the median number of requests of a page.
    """

    seed: int = 1
    sites: int = 10
    pages: int = 10
    https: float = 0.0
    logins: float = 1.0
    weight: float = 1.0
    requests: float = _REQUESTS

    def __post_init__(self) -> None:
        for name, value in (("https", self.https), ("logins", self.logins)):
            if not 0 <= value <= 1:
                raise ParameterError(f"{name}={value}", remedy="give a share between 0 and 1")
        if self.sites < 1 or self.pages < 1 or self.weight <= 0 or self.requests < 1:
            raise ParameterError(
                f"no web has sites={self.sites}, pages={self.pages}, weight={self.weight}, "
                f"requests={self.requests}",
                remedy="give positive numbers",
            )

    @cached_property
    def all_sites(self) -> tuple[Site, ...]:
        """The sites, in order of their numbers."""
        return tuple(self._site(number) for number in range(self.sites))

    def _site(self, number: int) -> Site:
        return Site(
            seed=self.seed,
            number=number,
            https=_is_one_of(number, self.sites, self.https),
            login=_is_one_of(self.sites - 1 - number, self.sites, self.logins),
            pages=self.pages,
            weight=self.weight,
            requests=self.requests,
        )

    def visits(self, seed: int = 1) -> Iterator[tuple[Site, int]]:
        """An endless walk: sites and numbers of their pages; popular sites first (Zipf)."""
        numbers = random.Random(f"{self.seed}/visits/{seed}")
        weights = [1 / (rank + 1) for rank in range(self.sites)]
        order = numbers.sample(self.all_sites, self.sites)
        while True:
            site = numbers.choices(order, weights)[0]
            yield site, numbers.randrange(site.pages)


def _is_one_of(number: int, count: int, share: float) -> bool:
    """Spread `share` of `count` evenly: is `number` in it?"""
    wanted = round(share * count)
    return (number * wanted) % count < wanted
