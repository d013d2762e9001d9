"""The pod's dataclasses behave as those of the standard library, and cost a boot less."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pod.util import dataclass as ours

ROOT = Path(__file__).resolve().parents[4]


def kinds(module: Any) -> dict[str, Any]:
    """Make the same classes with the decorator of a module."""

    @module.dataclass(frozen=True)
    class Inner:
        number: int
        names: tuple[str, ...] = ()
        remark: str = module.field(default="", compare=False)

    made: Any = Inner  # no type checker knows its fields

    @module.dataclass(frozen=True)
    class Frozen:
        name: str
        inner: Any = made(1)
        told: list[Any] = module.field(default_factory=list)
        token: str | None = module.field(default=None, repr=False)

        def __post_init__(self) -> None:
            if not self.name:
                raise ValueError("no name")

    @module.dataclass
    class Plain:
        count: int = 0
        seen: dict[str, Inner] = module.field(default_factory=dict)

    @module.dataclass(eq=False)
    class Identity:
        count: int

    return {each.__name__: each for each in (Inner, Frozen, Plain, Identity)}


def outcome(kinds: dict[str, Any], module: Any, what: str) -> Any:
    """Evaluate an expression; an exception gives its type."""
    try:
        found = eval(what, {**kinds, "m": module})  # noqa: S307
    except (TypeError, ValueError, AttributeError) as error:
        return next(each for each in (AttributeError, TypeError, ValueError) if isinstance(error, each))
    return found if isinstance(found, (bool, int, str, dict, tuple)) else repr(found)


@pytest.mark.parametrize(
    "what",
    [
        "Inner(1)",
        "Inner(1, ('a',))",
        "Inner(number=1)",
        "Inner()",
        "Inner(1, (), '', 3)",
        "Inner(1, remark='a') == Inner(1, remark='b')",
        "hash(Inner(1, remark='a')) == hash(Inner(1, remark='b'))",
        "Inner(1, number=2)",
        "Inner(1, other=2)",
        "Inner(names=(), other=2)",
        "Inner(1) == Inner(1)",
        "Inner(1) == Inner(2)",
        "Inner(1) == 1",
        "hash(Inner(1)) == hash(Inner(1))",
        "setattr(Inner(1), 'number', 2)",
        "delattr(Inner(1), 'number')",
        "Frozen('x', token='secret')",
        "Frozen('')",
        "Frozen('x').told is Frozen('x').told",
        "hash(Frozen('x'))",
        "m.asdict(Frozen('x', Inner(2, ('a', 'b')), [Inner(3)]))",
        "m.asdict(Plain(1, {'a': Inner(2)}))",
        "m.replace(Frozen('x', token='t'), name='y').token",
        "m.replace(Frozen('x'), name='')",
        "m.replace(Inner(1), other=2)",
        "Plain(3) == Plain(3)",
        "hash(Plain())",
        "setattr(Plain(), 'count', 2)",
        "Identity(1) == Identity(1)",
        "hash(Identity(1)) == 0",
        "Inner.__match_args__",
        "Frozen.token",
        "hasattr(Frozen, 'told')",
    ],
)
def test_what_the_standard_library_gives(what: str) -> None:
    wanted = outcome(kinds(dataclasses), dataclasses, what)
    assert outcome(kinds(ours), ours, what) == wanted


def test_what_has_no_rule_here_is_refused() -> None:
    with pytest.raises(TypeError):
        ours.field(init=False)
    base = kinds(ours)["Inner"]
    with pytest.raises(TypeError, match="inherits"):
        ours.dataclass(type("More", (base,), {"__annotations__": {"more": "int"}}))
    with pytest.raises(TypeError, match="default_factory"):
        ours.dataclass(type("Shared", (), {"__annotations__": {"more": "list"}, "more": []}))


@pytest.mark.parametrize("command", ["decide", "run", "services"])
def test_no_command_of_a_boot_loads_the_standard_one(command: str) -> None:
    script = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); import pod.commands.{command}"
    script += (
        "\nfrom pod.flags import choose; from pod.volume import inspect; from pod.services import config"
    )
    script += "\nprint('dataclasses' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
