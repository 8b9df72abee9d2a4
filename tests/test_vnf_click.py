"""The Click language: what is read, what is refused and where, and that nothing else happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.vnf.click import ClickError, Port, elaborate, parse
from testbed.vnf.click.syntax import (
    Body,
    Config,
    Declaration,
    Define,
    ElementClass,
    Hop,
    Row,
    Use,
    text,
)

KNOWN = frozenset(("A", "B", "FromDevice", "ToDevice", "Counter", "Queue", "IPFilter"))


def graph(source: str, **values: str):
    return elaborate(parse(source, "f.click"), KNOWN, values, "f.click")


def edges(source: str) -> list[str]:
    return sorted(
        f"{c.source.element}[{c.source.number}]->[{c.target.number}]{c.target.element}"
        for c in graph(source).connections
    )


def refusal(source: str) -> ClickError:
    with pytest.raises(ClickError) as caught:
        graph(source)
    return caught.value


def test_declarations_and_rows():
    found = graph("a, b :: A(1, 2); a [1] -> [0] b; c :: Counter -> a;")
    assert list(found.elements) == ["a", "b", "c"]
    assert [each.text for each in found.elements["b"].arguments] == ["1", "2"]
    assert edges("a, b :: A(1, 2); a [1] -> [0] b; c :: Counter -> a;") == [
        "a[1]->[0]b",
        "c[0]->[0]a",
    ]


def test_elements_may_be_used_before_they_are_declared():
    assert edges("a -> b; b :: B; a :: A") == ["a[0]->[0]b"]


def test_anonymous_elements_are_called_by_class_and_number():
    assert list(graph("A -> B(x) -> A").elements) == ["A@1", "B@2", "A@3"]


def test_comments_strings_and_nested_parentheses():
    source = """// a comment with a -> b
    # 1 "line.click"
    a :: A(x (y, z), "q)r,", /* , */ 'u,v' // rest )
      , w); /* a -> a */"""
    arguments = [each.text for each in graph(source).elements["a"].arguments]
    assert arguments == ["x (y, z)", '"q)r,"', "'u,v'", "w"]


def test_variables():
    found = graph("define($X 1.2.3.4, $Y ${X}/8); a :: A($X, '$X', src ${Y}b);")
    assert [a.text for a in found.elements["a"].arguments] == ["1.2.3.4", "'$X'", "src 1.2.3.4/8b"]


def test_values_from_outside_win():
    found = graph("define($X 1); a :: A($X)", X="2")
    assert found.elements["a"].arguments[0].text == "2"


def test_a_variable_with_commas_is_several_arguments():
    found = graph("define($R (a)); a :: A($LIST)", LIST="p, q(r, s)")
    assert [a.text for a in found.elements["a"].arguments] == ["p", "q(r, s)"]


COMPOUND = """elementclass Pair { $N |
    input -> a :: A($N) -> output;
    input [1] -> b :: B -> [1] output }
p :: Pair(7); Counter -> p -> Counter; Counter -> [1] p [1] -> Counter;"""


def test_compounds_are_put_in_place():
    found = graph(COMPOUND)
    assert found.elements["p/a"].arguments[0].text == "7"
    assert edges(COMPOUND) == [
        "Counter@1[0]->[0]p/a",
        "Counter@3[0]->[0]p/b",
        "p/a[0]->[0]Counter@2",
        "p/b[0]->[0]Counter@4",
    ]


def test_a_compound_may_pass_straight_through_and_be_anonymous():
    assert edges("A -> { input -> { input -> output } -> output } -> B") == ["A@1[0]->[0]B@4"]


def test_a_class_may_have_another_name_and_compounds_inner_classes():
    found = graph("elementclass X A; elementclass Y { elementclass Z X; z :: Z(1) } y :: Y; x :: X")
    assert {each.name: each.kind for each in found.elements.values()} == {"y/z": "A", "x": "A"}


@pytest.mark.parametrize(
    ("source", "place", "what"),
    [
        ("a :: Countr;", "1:1", "unknown element class Countr; did you mean Counter?"),
        ("a :: A;\n  a -> bb;", "2:8", "no element or class bb"),
        ("a :: A;\na :: B", "2:1", "a is declared already, at f.click:1:1"),
        ("A ->\n", "2:1", "unexpected the end; give an element here"),
        ("a :: A(b", "1:7", "'(' is not closed; close it with ')'"),
        ("A -> B) ", "1:7", "')' without '('"),
        ("a :: A /* b", "1:8", "this comment does not end"),
        ("a :: A b :: B", "1:8", "unexpected 'b'; end the statement before it with ';'"),
        ("a :: A; a [x] -> a", "1:12", "give a port's number"),
        ("a :: A; a [999] -> a", "1:12", "port 999; ports go to 255"),
        ("a :: A; a [1]", "1:9", "port [1] leads nowhere"),
        ("a :: A(x,\n  $Y)", "2:3", "$Y has no value"),
        ("elementclass X { $A | a :: A }; x :: X", "1:33", "x is given 0 arguments for 1"),
        ("elementclass X { X } X", "1:18", "too many elements; no compound may contain itself"),
        ("elementclass X { input -> A } A -> x :: X -> A", "1:36", "nothing comes to x/output [0]"),
        ("elementclass X { input -> A } X", "1:18", "nothing comes to X@1/input [0]"),
        ("input -> A", "1:1", "input outside of a compound"),
        ("Counter :: A", "1:1", "an element cannot be called Counter"),
        ("elementclass X { a :: A || b :: B }", "1:25", "give each variant"),
        ("define(X 1)", "1:8", "'X' is no variable"),
        ("a :: A; % b", "1:9", "unexpected '%'"),
    ],
)
def test_mistakes_are_one_line_with_their_place(source: str, place: str, what: str):
    error = refusal(source)
    assert str(error).startswith(f"f.click:{place}: ")
    assert what in str(error)
    assert "\n" not in str(error)
    assert error.remedy
    assert error.exit_status == 2


# -- whatever it is given -------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["a", "b", "A", "Counter", "input", "output", "elementclass", "define", "require", "::", "->",
     ",", ";", "(", ")", "[", "]", "{", "}", "|", "||", "$x", "0", "7", '"', "'", "//", "/*", "*/",
     "\n", " ", "\\", "\0", "é"]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(PIECES).map("".join), st.lists(PIECES).map(" ".join)))
def test_nothing_but_its_own_errors_is_raised(source: str):
    try:
        found = graph(source)
    except ClickError as error:
        line, column = error.place.line, error.place.column
        assert 1 <= line <= source.count("\n") + 1
        assert 1 <= column <= len(source) + 1
    else:
        assert {p.element for c in found.connections for p in (c.source, c.target)} <= set(
            found.elements
        )
        assert all(isinstance(c.source, Port) for c in found.connections)


def test_depth_is_no_way_out_either():
    assert "deep" in str(refusal("{" * 10_000))
    assert refusal("a :: A(" * 10_000)


# -- to text and back ----------------------------------------------------------------------------

RESERVED = {"elementclass", "define", "require"}
NAMES = st.from_regex(r"[a-z_@][a-z0-9_@]{0,5}(/[a-z0-9]{1,3})?", fullmatch=True).filter(
    lambda name: name not in RESERVED
)
CLASSES = st.from_regex(r"[A-Z][A-Za-z0-9]{0,6}", fullmatch=True)
INNER = st.text(st.characters(exclude_characters="()\"'/\r", exclude_categories=["Cs"]), max_size=8)
CONFIGS = st.recursive(
    INNER | st.just('")"') | st.just("'('"), lambda c: c.map(lambda t: f"({t})"), max_leaves=3
).map(Config)
PORTS = st.none() | st.integers(0, 255)


def _bodies(statements: st.SearchStrategy) -> st.SearchStrategy:
    formals = st.lists(st.from_regex(r"\$[A-Z]{1,3}", fullmatch=True), max_size=2).map(tuple)
    return st.builds(Body, formals, st.lists(statements, max_size=3).map(tuple))


def _statements(inner: st.SearchStrategy) -> st.SearchStrategy:
    kinds = CLASSES | _bodies(inner)
    config = st.none() | CONFIGS
    uses = st.one_of(
        st.builds(Use, NAMES),
        st.builds(Use, st.just(""), CLASSES, CONFIGS),
        st.builds(Use, NAMES, kinds, config),
        st.builds(Use, st.just(""), _bodies(inner), config),
    )
    rows = st.lists(st.builds(Hop, uses, PORTS, PORTS), min_size=2, max_size=4).map(tuple)
    names = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
    return st.one_of(
        st.builds(Row, rows),
        st.builds(Declaration, names, kinds, config),
        st.builds(ElementClass, CLASSES, kinds),
        st.builds(Define, CONFIGS),
    )


STATEMENTS = st.recursive(st.builds(Define, CONFIGS), _statements, max_leaves=8)


@given(st.lists(STATEMENTS, max_size=5).map(tuple))
def test_what_is_printed_says_the_same(statements):
    assert parse(text(statements)) == statements


def test_places_count_lines_and_columns():
    (row,) = parse("\n  A -> B", "x")
    assert isinstance(row, Row)
    assert [hop.use.place for hop in row.hops] == [("x", 2, 3), ("x", 2, 8)]
