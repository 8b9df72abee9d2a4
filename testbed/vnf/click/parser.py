"""The Click language's grammar: tokens to a syntax tree.

Source: the Click manual, "The Click Language" (click(5)).
"""

from __future__ import annotations

from testbed.vnf.click.errors import ClickError
from testbed.vnf.click.lexer import Source, Token, tokens
from testbed.vnf.click.syntax import (
    Body,
    Config,
    Declaration,
    Define,
    ElementClass,
    Hop,
    Require,
    Row,
    Statement,
    Use,
)

_DEEPEST = 50  # compounds within compounds
_LARGEST_PORT = 255


def parse(text: str, file: str = "config") -> tuple[Statement, ...]:
    """The statements of a configuration; `file` is what errors call it.  Raises `ClickError`."""
    return _Parser(Source(text, file)).configuration()


class _Parser:
    def __init__(self, source: Source) -> None:
        self._tokens = list(tokens(source))
        self._at = 0
        self._depth = 0

    # -- tokens -----------------------------------------------------------------------------

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _peek(self, distance: int = 1) -> str:
        return self._tokens[min(self._at + distance, len(self._tokens) - 1)].kind

    def _take(self) -> Token:
        token = self._next
        self._at += token.kind != "end"
        return token

    def _accept(self, kind: str) -> Token | None:
        return self._take() if self._next.kind == kind else None

    def _expect(self, kind: str, remedy: str) -> Token:
        if self._next.kind != kind:
            raise self._unexpected(remedy)
        return self._take()

    def _unexpected(self, remedy: str) -> ClickError:
        token = self._next
        shown = {"end": "the end", "config": "'('"}.get(token.kind, f"'{token.text}'")
        return ClickError(token.place, f"unexpected {shown}", remedy=remedy)

    # -- statements -------------------------------------------------------------------------

    def configuration(self) -> tuple[Statement, ...]:
        found = self._statements()
        if self._next.kind != "end":
            raise self._unexpected("write statements separated by ';'")
        return found

    def _statements(self) -> tuple[Statement, ...]:
        found: list[Statement] = []
        while self._next.kind not in ("end", "}", "||"):
            if self._accept(";"):
                continue
            found.append(self._statement())
            if isinstance(found[-1], ElementClass | Define | Require):
                continue  # these end by themselves
            if self._next.kind not in ("end", "}", "||", ";"):
                raise self._unexpected("end the statement before it with ';'")
        return tuple(found)

    def _statement(self) -> Statement:
        token = self._next
        if token.kind == "name":
            if token.text == "elementclass":
                return self._element_class()
            if token.text in ("define", "require") and self._peek() == "config":
                self._take()
                config = self._config()
                assert config is not None
                kind = Define if token.text == "define" else Require
                return kind(config, place=token.place)
            if self._declares():
                return self._declaration()
        return self._row()

    def _element_class(self) -> ElementClass:
        start = self._take()
        name = self._expect("name", "give the new class a name").text
        if self._next.kind == "{":
            return ElementClass(name, self._body(), place=start.place)
        other = self._expect("name", "follow it by '{ ... }' or the name of a class")
        return ElementClass(name, other.text, place=start.place)

    def _declares(self) -> bool:
        """Is this `a, b :: Class` with several names?  (One may begin a row.)"""
        return self._peek() == ","

    def _declaration(self) -> Declaration:
        start = self._next
        names = [self._take().text]
        while self._accept(","):
            names.append(self._expect("name", "give another element's name after ','").text)
        self._expect("::", "declare the elements with '::' and a class")
        kind = self._class()
        return Declaration(tuple(names), kind, self._config(), place=start.place)

    def _row(self) -> Statement:
        start = self._next
        hops = [self._hop()]
        while self._accept("->"):
            hops.append(self._hop())
        first = hops[0]
        if len(hops) == 1 and first == Hop(first.use) and first.use.name and first.use.kind:
            use = first.use
            return Declaration((use.name,), use.kind, use.config, place=start.place)
        return Row(tuple(hops), place=start.place)

    def _hop(self) -> Hop:
        into = self._port()
        use = self._use()
        return Hop(use, into, self._port())

    def _port(self) -> int | None:
        if not self._accept("["):
            return None
        number = self._expect("number", "give a port's number between '[' and ']'")
        self._expect("]", "close the port with ']'")
        if len(number.text) > 3 or int(number.text) > _LARGEST_PORT:
            raise ClickError(
                number.place, f"port {number.text[:20]}", remedy=f"ports go to {_LARGEST_PORT}"
            )
        return int(number.text)

    def _use(self) -> Use:
        start = self._next
        if start.kind == "{":
            return Use(kind=self._body(), config=self._config(), place=start.place)
        name = self._expect("name", "give an element here").text
        if self._accept("::"):
            return Use(name, self._class(), self._config(), place=start.place)
        config = self._config()
        if config is None:
            return Use(name, place=start.place)
        return Use("", name, config, place=start.place)

    def _class(self) -> str | Body:
        if self._next.kind == "{":
            return self._body()
        return self._expect("name", "give an element class after '::'").text

    def _config(self) -> Config | None:
        token = self._accept("config")
        return None if token is None else Config(token.text, place=token.place)

    # -- compounds --------------------------------------------------------------------------

    def _body(self) -> Body:
        start = self._expect("{", "open the compound with '{'")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ClickError(
                start.place,
                f"compounds more than {_DEEPEST} deep",
                remedy="name inner ones by elementclass",
            )
        formals = self._formals()
        statements = self._statements()
        if self._next.kind == "||":
            raise self._unexpected("give each variant of a compound a class of its own")
        self._expect("}", "close the compound with '}'")
        self._depth -= 1
        return Body(formals, statements, place=start.place)

    def _formals(self) -> tuple[str, ...]:
        if self._accept("|"):
            return ()
        if self._next.kind != "variable":
            return ()
        names = [self._take().text]
        while self._accept(","):
            names.append(self._expect("variable", "parameters are written $NAME").text)
        self._expect("|", "end the parameters with '|'")
        return tuple(names)
