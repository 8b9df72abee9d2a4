"""Which engine a link gets, and what is refused: with the kernel's abilities and engines faked."""

from __future__ import annotations

import pytest

from testbed.errors import EngineError, FeatureError, ParameterError, TestbedError
from testbed.kernel import NetworkNamespace
from testbed.links import (
    Choice,
    DirectionReport,
    Engine,
    Engines,
    LinkSpec,
    Specs,
    Wire,
    engines,
    kernel_engine,
)


class FakeEngine(Engine):
    """Remembers what it was told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.namespace = NetworkNamespace.current()
        self.told: list[str] = []

    def attach(self, wire: Wire) -> None:
        self.told.append(f"attach {wire.name}")

    def update(self, wire: Wire, specs: Specs) -> Wire:
        self.told.append(f"update {wire.name}")
        return wire.with_specs(specs)

    def detach(self, wire: Wire) -> None:
        self.told.append(f"detach {wire.name}")

    def reports(self) -> list[DirectionReport]:
        return []

    def close(self) -> None:
        self.namespace.close()


def kernel(monkeypatch: pytest.MonkeyPatch, lacks: str) -> None:
    def missing(*, netem: bool = False, codel: bool = False, seeds: bool = False) -> str:
        asked = {"htb": True, "netem": netem, "codel": codel, "seeds": seeds}
        return f"this kernel has no {lacks}" if lacks and asked[lacks] else ""

    monkeypatch.setattr(kernel_engine, "missing", missing)
    for name in ("htb", "netem", "fabric"):
        monkeypatch.setitem(engines._MAKERS, name, lambda _seed, name=name: FakeEngine(name))


def wire(spec: LinkSpec, name: str = "a--b") -> Wire:
    return Wire(name=name, ports=(1, 2), port_names=("a", "b"), specs=(spec, spec))


@pytest.mark.parametrize(
    ("lacks", "prefer", "spec", "engine", "why"),
    [
        ("", "auto", LinkSpec(10, queue=5), "htb", "rate and queue only"),
        ("", "auto", LinkSpec(), "htb", "rate and queue only"),
        ("", "fabric", LinkSpec(10), "htb", "rate and queue only"),
        ("", "auto", LinkSpec(10, 0), "netem", "this kernel has netem"),
        ("", "auto", LinkSpec(10, loss=1, seed=3), "fabric", "the link has a seed"),
        ("", "fabric", LinkSpec(delay=5), "fabric", "forced"),
        ("", "netem", LinkSpec(delay=5, seed=3), "netem", "forced"),
        ("netem", "auto", LinkSpec(delay=5), "fabric", "this kernel has no netem"),
        ("netem", "auto", LinkSpec(5), "htb", "rate and queue only"),
        ("seeds", "auto", LinkSpec(10, loss=1, seed=3), "fabric", "the link has a seed"),
        ("seeds", "netem", LinkSpec(10, loss=1), "netem", "forced"),
        ("seeds", "netem", LinkSpec(10, seed=3), "htb", "rate and queue only"),
        ("codel", "auto", LinkSpec(5, aqm="codel"), "fabric", "this kernel has no codel"),
        ("htb", "auto", LinkSpec(5), "fabric", "this kernel has no htb"),
    ],
)
def test_choice(
    monkeypatch: pytest.MonkeyPatch, lacks: str, prefer: str, spec: LinkSpec, engine: str, why: str
) -> None:
    kernel(monkeypatch, lacks)
    net = Engines(prefer=prefer)
    assert net.choose((spec, spec)) == engine
    net.attach(wire(spec))
    assert net.choices() == [Choice("a--b", engine, why)]
    net.close()


def test_one_impaired_direction_decides_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, "")
    assert Engines().choose((LinkSpec(10), LinkSpec(10, "5ms"))) == "netem"


def test_a_forced_engine_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, "netem")
    with pytest.raises(FeatureError, match='no netem; use a kernel that has it, or engine="fa'):
        Engines(prefer="netem").choose((LinkSpec(delay=1), LinkSpec()))
    kernel(monkeypatch, "seeds")
    with pytest.raises(FeatureError, match="no seeds"):
        Engines(prefer="netem").choose((LinkSpec(delay=1, seed=3), LinkSpec()))
    with pytest.raises(ParameterError, match="engine is 'magic'; choose of auto"):
        Engines(prefer="magic")


def test_updates_that_the_engine_cannot_express_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel(monkeypatch, "")
    net, plain, rich = Engines(), wire(LinkSpec(10)), wire(LinkSpec(10, 0), "c--d")
    net.attach(plain)
    net.attach(rich)
    assert net.update(plain, (LinkSpec(20), LinkSpec(5))).specs == (LinkSpec(20), LinkSpec(5))
    assert net.update(rich, (LinkSpec(20, 7),) * 2).specs[0].delay_s == 0.007
    with pytest.raises(ParameterError, match="build the link with delay='0ms'"):
        net.update(plain, (LinkSpec(10, "5ms"), LinkSpec(10)))
    with pytest.raises(ParameterError, match="from the start"):
        net.update(rich, (LinkSpec(10, queue=5),) * 2)
    net.close()


def test_wires_go_to_the_worker_that_has_least_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, "")
    net = Engines(prefer="fabric", workers=3)
    slow, fast = LinkSpec(1, 0), LinkSpec(800, 0)
    asked = zip("abcdef", [fast, *[slow] * 5], strict=True)
    places = [net.place(name, (spec, spec)) for name, spec in asked]
    first, second, third = places[:3]
    assert len({id(engine) for engine in places}) == 3
    assert places[3:] == [second, third, second]
    assert net.place("a", (fast, fast)) is first  # where it is already
    net.attach(wire(fast, "a"))
    net.detach(wire(fast, "a"))
    assert net.place("g", (fast, fast)) is first
    net.close()


def test_an_idle_worker_is_used_before_another_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, "")
    net, spec = Engines(prefer="fabric", workers=2), LinkSpec(1, 0)
    net.attach(wire(spec, "a"))
    first = net.place("b", (spec, spec)), net.detach(wire(spec, "a"))
    assert net.place("c", (spec, spec)) is not first[0]
    with pytest.raises(ParameterError, match="workers is 0; give a number from 1 on"):
        Engines(workers=0)
    net.close()


def test_the_other_engines_end_when_one_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, "")
    ended: list[Engine] = []

    def close(self: Engine) -> None:
        ended.append(self)
        if len(ended) == 1:
            raise EngineError("it died")

    monkeypatch.setattr(FakeEngine, "close", close)
    net = Engines(prefer="fabric", workers=2)
    for name in "ab":
        net.attach(wire(LinkSpec(1, 0), name))
    with pytest.raises(EngineError, match="it died"):
        net.close()
    assert len(ended) == 2


def test_wires_are_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, "")
    net = Engines()
    net.attach(wire(LinkSpec(1)))
    with pytest.raises(TestbedError, match="there is a wire 'a--b' already"):
        net.attach(wire(LinkSpec(1)))
    with pytest.raises(EngineError, match="no engine carries a wire 'x'"):
        net.update(wire(LinkSpec(1), "x"), (LinkSpec(2),) * 2)
    net.detach(wire(LinkSpec(1)))
    net.attach(wire(LinkSpec(1)))
    engine = net.place("c--d", (LinkSpec(1),) * 2)
    assert isinstance(engine, FakeEngine)
    assert engine.told == ["attach a--b", "detach a--b", "attach a--b"]
    net.close()
