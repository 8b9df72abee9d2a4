"""Graphs to rules: what expressions mean, what is refused and where, and the order of things."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from vnf_lab import example

from testbed.cli.vnf import vnf
from testbed.errors import UserError
from testbed.vnf.click import ClickError
from testbed.vnf.compiler import compile_file, compile_text
from testbed.vnf.elements import REGISTRY
from testbed.vnf.elements.arguments import bandwidth, unquoted
from testbed.vnf.elements.filters import BadPattern, condition
from testbed.vnf.elements.lookup import intervals
from testbed.vnf.elements.predicates import All, Any, Match, TooManyRules, negation, rules

BOTH = "FromDevice(eth0) -> {} -> ToDevice(eth1);"


def chain(text: str, name: str) -> list[str]:
    return compile_text(text).chains[f"el_{name}"]


# -- conditions ----------------------------------------------------------------------------------

ATOMS = [f"field{number}" for number in range(4)]
MATCHES = st.builds(
    Match,
    st.sampled_from(ATOMS),
    st.lists(st.sampled_from("123"), min_size=1, max_size=2, unique=True).map(tuple),
    st.booleans(),
)
CONDITIONS = st.recursive(
    MATCHES,
    lambda inner: st.builds(
        lambda kind, parts: kind(tuple(parts)),
        st.sampled_from([All, Any]),
        st.lists(inner, max_size=3),
    ),
    max_leaves=8,
)
PACKETS = st.fixed_dictionaries({name: st.sampled_from("123") for name in ATOMS})


def holds(what, packet: dict[str, str]) -> bool:
    if isinstance(what, Match):
        return (packet[what.left] in what.values) != what.negated
    parts = [holds(part, packet) for part in what.parts]
    return all(parts) if isinstance(what, All) else any(parts)


def applies(rule: str, packet: dict[str, str]) -> bool:
    """Does a rule of "FIELD ==|!= VALUE|{ VALUE, ... }" matches apply to a packet?"""
    words = rule.replace("{", "").replace("}", "").replace(",", "").split()
    starts = [n for n, word in enumerate(words) if word in packet]
    for start, end in zip(starts, [*starts[1:], len(words)], strict=False):
        field, sign, *values = words[start:end]
        if (packet[field] in values) != (sign == "=="):
            return False
    return True


@given(CONDITIONS, PACKETS)
def test_rules_apply_exactly_where_their_condition_holds(what, packet):
    assert any(applies(rule, packet) for rule in rules(what)) == holds(what, packet)


@given(CONDITIONS, PACKETS)
def test_a_negation_holds_exactly_where_the_condition_does_not(what, packet):
    assert holds(negation(what), packet) is not holds(what, packet)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", [""]),
        ("none", []),
        ("src host 10.0.0.1", ["meta nfproto == ipv4 ip saddr == 10.0.0.1"]),
        ("src 10.0.0.1 or 10.0.0.2", ["meta nfproto == ipv4 ip saddr == { 10.0.0.1, 10.0.0.2 }"]),
        ("dst net 10.0.0.0 mask 255.0.0.0", ["meta nfproto == ipv4 ip daddr == 10.0.0.0/8"]),
        ("not src host 10.0.0.1", ["meta nfproto != ipv4", "ip saddr != 10.0.0.1"]),
        ("tcp dst port https", ["meta l4proto == 6 th dport == 443"]),
        ("dst port 1000-2000", ["meta l4proto == { 6, 17 } th dport == 1000-2000"]),
        ("src tcp port > 1023", ["meta l4proto == 6 th sport == 1024-65535"]),
        ("tcp syn && !ack", ["meta l4proto == 6 tcp flags & syn != 0 tcp flags & ack == 0"]),
        ("src and dst port 53", ["meta l4proto == { 6, 17 } th sport == 53 th dport == 53"]),
        ("icmp type echo", ["meta l4proto == 1 @th,0,8 == 8"]),
        ("dst host fd00::1", ["meta nfproto == ipv6 ip6 daddr == fd00::1"]),
        ("ip ttl < 2 udp", ["meta nfproto == ipv4 ip ttl == 0-1 meta l4proto == 17"]),
        ("established or related", ["ct state established,related"]),
        (
            "new",
            [
                "ct state == new meta l4proto != 6",
                "ct state == new tcp flags & (fin|syn|rst|ack) == syn",
            ],
        ),
    ],
)
def test_expressions(text: str, expected: list[str]):
    assert rules(condition(text)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "foo", "src", "src host", "port 65536", "(tcp", "tcp)", "ip foo 1", "src host 1.2.3",
     "tcp opt x", "port 9-5", "10.0.0.1", "not", "icmp type 300", "(" * 99]
)  # fmt: skip
def test_what_is_no_expression(text: str):
    with pytest.raises(BadPattern) as caught:
        condition(text)
    assert caught.value.remedy


WORDS = st.sampled_from(
    ["src", "dst", "host", "net", "port", "tcp", "udp", "icmp", "type", "echo", "ip", "ttl", "and",
     "or", "not", "(", ")", "!", "<", "10.0.0.1", "10.0.0.0/8", "mask", "80", "1-2", "syn", "opt",
     "new", "all", "-", "fd00::1", "http", "proto", "frag", "=="]
)  # fmt: skip


@given(st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=30))
def test_expressions_are_read_or_refused(text: str):
    with contextlib.suppress(BadPattern, TooManyRules):
        rules(condition(text))


# -- arguments -----------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(REGISTRY)),
    st.lists(st.lists(WORDS, max_size=4).map(" ".join) | st.text(max_size=12), max_size=4),
)
def test_arguments_are_taken_or_refused_at_their_place(kind: str, arguments: list[str]):
    with contextlib.suppress(ClickError):
        compile_text(BOTH.format(f"x :: {kind}({', '.join(arguments)})"))


@pytest.mark.parametrize(
    ("text", "bits"),
    [("10Mbps", 1e7), ("1 kbps", 1e3), ("2MBps", 1.6e7), ("1000", 8000.0), ("1.5Gb/s", 1.5e9)],
)
def test_bandwidths(text: str, bits: float):
    assert bandwidth(text) == bits


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"a\\n\\<00 ff>\\x41"', b"a\n\x00\xffA"),
        ("'\\n'", b"\\n"),
        ("plain", b"plain"),
        ('""', b""),
    ],
)
def test_strings(text: str, found: bytes):
    assert unquoted(text) == found


PREFIXES = st.builds(
    lambda number, length: ipaddress.IPv4Network((number << 24, length), strict=False),
    st.integers(0, 255),
    st.integers(0, 12),
)


@given(st.dictionaries(PREFIXES, st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 255))
def test_ranges_mean_the_longest_prefix(table, first: int):
    address = ipaddress.IPv4Address(first << 24 | 77)
    holding = [network for network in table if address in network]
    found = [hop[1] for low, high, hop in intervals((n, ("", o)) for n, o in table.items())
             if low <= address <= high]  # fmt: skip
    longest = max(holding, key=lambda network: network.prefixlen, default=None)
    assert found == ([] if longest is None else [table[longest]])


# -- graphs --------------------------------------------------------------------------------------


def test_elements_become_chains_and_ports_lead_on():
    text = """FromDevice(eth0) -> c :: IPClassifier(udp, tcp, -); c [0] -> a :: Counter -> Discard;
    c [1] -> Null -> CheckIPHeader(14) -> ToDevice(eth1); c [2] -> Discard;"""
    assert chain(text, "c") == [
        "meta l4proto == 17 goto el_a",
        "meta l4proto == 6 goto el_ToDevice.5",
        "drop",
    ]
    assert chain(text, "a") == ['counter name "el_a"', "drop"]


def test_classifiers_count_from_the_header_that_is_first():
    text = "FromDevice(eth0) -> {} c :: Classifier(12/0800 23/06) -> Discard;"
    assert chain(text.format(""), "c")[0] == "@ll,96,16 == 0x0800 @nh,72,8 == 0x06 drop"
    behind = text.format("Strip(14) ->").replace("12/0800 23/06", "9/06 !0/4?")
    assert chain(behind, "c")[0] == "@nh,72,8 == 0x06 @nh,0,8 & 0xf0 != 0x40 drop"


def test_what_looks_at_translated_destinations_comes_after_the_translation():
    text = """rw :: IPRewriter(pattern - - 10.9.0.1 - 0 1, drop); FromDevice(eth0) -> rw;
    rw [0] -> IPClassifier(dst host 10.9.0.1) -> ToDevice(eth1);
    FromDevice(eth1) -> [1] rw [1] -> ToDevice(eth0);"""
    program = compile_text(text)
    assert "prerouting priority -90" in program.base_chains["translated"]
    assert "goto resume_1" in program.chains["el_rw_new1"]
    assert "translated" not in compile_text(example("firewall_nat")).base_chains


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("a :: Counter;", "1:1", "Counter a: input [0] is not connected"),
        ("FromDevice(e) -> Counter -> c :: Counter", "1:29", "output [0] is not connected"),
        ("FromDevice(e) -> c :: IPClassifier(tcp, udp) -> Discard;", "1:18", "output [1] is not"),
        (BOTH.format("c :: Counter") + "c [1] -> Discard;", "1:21", "output [1] is connected, and"),
        (BOTH.format("c :: Counter") + "c -> Discard;", "1:52", "output [0] of c is connected tw"),
        ("FromDevice(e) -> IPFilter(allow tcp,\n  alow udp) -> Discard", "2:3", "'alow' is no act"),
        ("FromDevice(e) -> IPFilter(allow tcp, // x\n deny foo) -> Discard", "2:2", "no condition"),
        ("FromDevice(e) -> Paint(256) -> Discard", "1:24", "COLOR is '256'"),
        ("FromDevice(e) -> Paint(1, 2) -> Discard", "1:27", "'2' is one argument too many"),
        ("FromDevice(e) -> Paint -> Discard", "1:18", "COLOR is missing; write Paint(COLOR)"),
        ("FromDevice(e) -> RateLimiter(fast) -> Discard", "1:30", "'fast' is no bandwidth"),
        ("FromDevice(e) -> IPRewriter(pattern 1 - - - 0 0) -> Discard", "1:29", "'1' is no addr"),
        ("FromDevice(e) -> IPRewriter(nobody) -> Discard", "1:18", "'nobody' is no input spec"),
        ("FromDevice(e) -> StaticIPLookup(1.0.0.0/8 x) -> Discard", "1:33", "is no route"),
        ("FromDevice(e) -> StringMatcher(\"\", -) -> Discard", "1:32", "cannot be searched for"),
        ("FromDevice(e) -> BandwidthShaper(1Mbps) -> ToDevice(f)", "1:1", "pushes and BandwidthSh"),
        ("FromDevice(e) -> Queue -> Paint(1) -> ToDevice(f)", "1:27", "cannot stand behind the q"),
        ("FromDevice(e) -> Queue -> IPFilter(allow all) -> Discard", "1:18", "waits to be pulled"),
        ("FromDevice(e) -> a :: Counter -> b :: Counter -> a", "1:18", "packets would go round: a"),
        ("FromDevice(e) -> t :: Tee(2) -> Discard; t [1] -> Paint(1) -> Discard", "1:51",
         "cannot take a Tee's copies"),
        ("FromDevice(e) -> Shaper(100) -> ToDevice(f)", "1:25", "packets per second cannot be sh"),
        ("FromDevice(e) -> rw :: IPRewriter(pattern 1.1.1.1 - - - 0 0)\n"
         "-> IPFilter(allow src 1.1.1.1) -> ToDevice(f)", "2:4", "looks at sources that rw has"),
        ("FromDevice(e) -> rw :: IPRewriter(keep 0 0) -> x :: IPRewriter(keep 0 0)"
         "-> ToDevice(f)", "1:48", "connections come to it that rw has translated"),
    ],
)  # fmt: skip
def test_what_cannot_be_compiled_is_named_with_its_place(text: str, place: str, what: str):
    with pytest.raises(ClickError) as caught:
        compile_text(text, file="f")
    assert str(caught.value).startswith(f"f:{place}: ")
    assert what in str(caught.value)


def test_more_than_marks_can_tell_is_refused():
    text = "".join(f"FromDevice(i{n}) -> ToDevice(o{n});" for n in range(16))
    with pytest.raises(ClickError, match="more than 15 devices"):
        compile_text(text)


def test_a_file_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(UserError, match="No such file"):
        compile_file(tmp_path / "none.click")
    (tmp_path / "latin.click").write_bytes(b"\xe9")
    with pytest.raises(UserError, match="not UTF-8"):
        compile_file(tmp_path / "latin.click")


@pytest.mark.parametrize("name", ["firewall_nat", "dpi", "load_balancer", "shaper", "forward"])
def test_examples_compile_and_say_the_same_when_they_are_flat(name: str):
    program = compile_text(example(name))
    again = compile_text(program.graph.text())
    assert list(again.elements) == list(program.elements)
    assert again.ruleset() == program.ruleset()


# -- the command ---------------------------------------------------------------------------------


def test_check_shows_what_a_file_becomes(tmp_path: Path):
    file = tmp_path / "f.click"
    file.write_text(example("shaper"))
    done = CliRunner().invoke(vnf, ["check", str(file), "--define", "RATE=5Mbps", "--json"])
    facts = json.loads(done.output)
    assert facts["shaped"]["eth1"][0] == [1, 5e6]
    assert facts["devices"] == ["eth0", "eth1"]
    assert "# eth1: HTB class" in CliRunner().invoke(vnf, ["check", str(file)]).output


def test_a_mistake_ends_in_one_line_and_status_2(tmp_path: Path, capsys):
    from testbed.cli.main import main

    file = tmp_path / "f.click"
    file.write_text("FromDevice(eth0) -> Cuonter -> Discard;")
    with pytest.raises(SystemExit) as caught:
        main(["vnf", "check", str(file)])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said == f"testbed: {file}:1:21: no element or class Cuonter; did you mean Counter?\n"


def test_every_element_says_what_its_arguments_are():
    done = CliRunner().invoke(vnf, ["elements", "--json"])
    rows = json.loads(done.output)
    assert set(rows) == set(REGISTRY)
    assert all(rows.values())
