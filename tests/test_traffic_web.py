"""The web without a network: messages, sites, what a server answers."""

from __future__ import annotations

import itertools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traffic.pattern import marked_bytes
from traffic.web.browser import references
from traffic.web.http import HttpError, Message, Parser, request, response
from traffic.web.server import Answers
from traffic.web.site import Web

token = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)
value = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x85\xa0"))
names = token.filter(lambda name: name.lower() not in ("content-length", "transfer-encoding"))
messages = st.builds(
    lambda path, headers, body: Message(
        start=("GET", f"/{path}", "HTTP/1.1"), headers=tuple(headers), body=body
    ),
    token,
    st.lists(st.tuples(names, value), max_size=4),
    st.binary(max_size=200),
)


@given(st.lists(messages, max_size=4), st.lists(st.integers(0, 2000), max_size=6))
def test_messages_survive_the_wire_in_any_pieces(said: list[Message], cuts: list[int]) -> None:
    data = b"".join(message.build() for message in said)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    parser = Parser()
    for start, end in itertools.pairwise(edges):
        parser.feed(data[start:end])
    assert list(parser.messages) == said
    assert parser.pending == 0


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nnonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"x" * 70000,
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(HttpError):
        Parser().feed(data)


def test_a_response_knows_whether_it_is_intact() -> None:
    message = response(200, b"body")
    assert message.intact
    assert not Message(start=message.start, headers=message.headers, body=b"bodY").intact
    with pytest.raises(HttpError, match="no response"):
        assert request("GET", "/", "h").status


# -- sites ---------------------------------------------------------------------------------------


def test_the_web_of_a_seed_is_always_the_same() -> None:
    first, second = (Web(seed=5).all_sites[3] for _ in range(2))
    assert first.page(2) == second.page(2)
    assert (first.password, first.session) == (second.password, second.session)
    other = Web(seed=6).all_sites[3]
    assert other.page(2) != first.page(2)
    assert other.session != first.session


def test_pages_weigh_what_was_measured_on_the_web() -> None:
    pages = [site.page(number) for site in Web(sites=40).all_sites for number in range(10)]
    assert statistics.median(1 + len(page.objects) for page in pages) == pytest.approx(71, rel=0.1)
    weights = [page.weight for page in pages]
    assert statistics.median(weights) == pytest.approx(2652e3, rel=0.15)
    assert 2 < statistics.quantiles(weights, n=10)[-1] / statistics.median(weights) < 4


@pytest.mark.parametrize("share", [0.0, 0.38, 0.45, 1.0])
def test_shares_of_sites(share: float) -> None:
    sites = Web(sites=100, https=share, logins=share).all_sites
    assert sum(site.https for site in sites) == round(100 * share)
    assert sum(site.login for site in sites) == round(100 * share)


def test_documents_refer_to_all_objects() -> None:
    page = Web().all_sites[0].page(1)
    for sensitive in (False, True):
        found = references(page.html(sensitive=sensitive))
        assert found == [(item.host, item.path) for item in page.objects]


def test_visits_go_everywhere_and_are_the_same_for_the_same_seed() -> None:
    web = Web(sites=4, pages=3)

    def walk(seed: int) -> list[tuple[str, int]]:
        visits = web.visits(seed)
        return [(site.host, number) for site, number in (next(visits) for _ in range(300))]

    assert walk(1) == walk(1) != walk(2)
    assert len(set(walk(1))) == 12


# -- the server ----------------------------------------------------------------------------------


def test_login_sets_the_cookie_and_only_with_it_content_is_personal() -> None:
    web = Web()
    site, answers = web.all_sites[0], Answers(web)
    assert answers.answer(request("GET", "/login", site.host)).status == 200
    assert answers.answer(request("POST", "/login", site.host, body=b"user=x")).status == 403
    welcome = answers.answer(request("POST", "/login", site.host, body=site.credentials))
    assert welcome.status == 303
    cookie = welcome.header("Set-Cookie").partition(";")[0]
    assert cookie == site.session
    public = answers.answer(request("GET", "/p0/", site.host))
    personal = answers.answer(request("GET", "/p0/", site.host, cookie=cookie))
    assert marked_bytes(public.body) == 0 < marked_bytes(personal.body)
    assert references(public.body) == references(personal.body)


def test_every_object_is_where_its_page_says() -> None:
    web = Web(sites=2, pages=1)
    site, answers = web.all_sites[1], Answers(web)
    for item in site.page(0).objects:
        personal = answers.answer(request("GET", item.path, item.host, cookie=site.session))
        assert (personal.status, len(personal.body), personal.intact) == (200, item.size, True)
        first_party = item.host == site.host
        assert marked_bytes(personal.body) == (item.size if first_party else 0)


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("elsewhere.example", "/p0/"),
        ("site0.example", "/p99/"),
        ("site0.example", "/p0/nothing.jpg"),
        ("site0.example", "/"),
        ("site0.example", "*"),
        ("site0.example", "/blob/huge"),
    ],
)
def test_what_is_not_there_is_not_found(host: str, path: str) -> None:
    assert Answers(Web()).answer(request("GET", path, host)).status == 404


def test_blobs_have_the_size_asked_for() -> None:
    answer = Answers(Web()).answer(request("GET", "/blob/123456?7", "video.example"))
    assert len(answer.body) == 123456
