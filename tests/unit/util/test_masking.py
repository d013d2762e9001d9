"""Logins and tokens are shown nowhere, however they were written; names that hold none stay readable."""

from __future__ import annotations

import ast
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from podkiln.errors import UsageError
from podkiln.util import console, masking
from podkiln.util.masking import Filter, masked

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _nothing_learnt() -> Iterator[None]:
    masking._known.clear()
    yield
    masking._known.clear()


@pytest.mark.parametrize(
    "text",
    [
        "https://me:canary@h/x",
        "https:/me:canary@h",
        "HTTPS://me:P@canary@h/x",
        "https://me:P/canary@h/x",
        "https://canary@github.com/x",
        "me:canary@host",
        "me:P=canary@localhost:5000/ns",
        "--registry=me:canary@host/x",
        "me:canary@host@sha256:abc",
        "comfyui=ssh://me:canary@h/r.git#abc",
        "https://h/x?a=1&token=canary&b=2",
        "not 'me:canary@host/x'\nnor PIP='https://me:canary@h/simple'",
        "URIs: https://me:canary@h/debian\n" + "a" * 5000,
    ],
)
def test_a_login_is_hidden_however_it_is_written(text: str) -> None:
    assert "canary" not in masked(text)
    assert masked(text).count("\n") == text.count("\n")


@pytest.mark.parametrize(
    "text",
    [
        "ghcr.io/you/app:v1@sha256:ab",
        "docker-image://ghcr.io/you/base:tag@sha256:aa",
        "oci-layout:///x/y@sha256:aa",
        "git@github.com:you/x.git",
        "localhost:5000/x",
    ],
)
def test_what_holds_no_login_stays_as_it_is(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("https://me:pw@h/x", True),
        ("https://token@h/x", True),
        ("ssh://me:pw@h/x", True),
        ("ssh://git@h/x", False),
        ("https://h/x?token=pw#abc", True),
        ("https://h/x#abc", False),
    ],
)
def test_what_a_url_holds(url: str, *, secret: bool) -> None:
    assert masking.has_secret(url) is secret


def test_what_was_learnt_is_hidden_where_nothing_marks_it() -> None:
    masking.learn(
        ["--python-index", "https://me:se%21cret,@h/simple"], {"HF_TOKEN": "hf_abc", "HOME": "/root"}
    )
    masking.learn(environment={"HTTPS_PROXY": "http://me:proxied@p:3128"})
    said = masked("se!cret, or se%21cret, or hf_abc or proxied in /root")
    assert said == "… or … or … or … in /root"


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_a_secret_is_cut_out_of_a_stream_wherever_it_is_split(size: int) -> None:
    masking.learn(["https://me:s3cret@h"])
    data = b"a s3cret and s3cre and s3s3crets3"
    cut = Filter()
    shown = b"".join(cut.feed(data[at : at + size]) for at in range(0, len(data), size)) + cut.rest()
    assert shown == "a … and s3cre and s3…s3".encode()


def test_no_error_repeats_a_login(capsys: pytest.CaptureFixture[str]) -> None:
    console.failure(UsageError("Not me:PW@host/x\x1b[31m.", hint="Try https://me:PW@h?token=PW"))
    assert capsys.readouterr().err == "podkiln: Not …@host/x\\x1b[31m.\n    Try https://…@h?…\n"


@settings(max_examples=300, deadline=5000)
@given(st.text(max_size=300))
@example("://@:@")
@example("x://[::1")
def test_any_text_can_be_masked(text: str) -> None:
    masked(text)


@pytest.mark.parametrize(
    "text", ["a:", "//", "@", ":@", "?token", "https://", "a", "&k", "a=b", "a/@", "[", "="]
)
def test_it_takes_no_longer_for_what_is_built_to_take_long(text: str) -> None:
    begun = time.monotonic()
    masked(text * 100_000)
    assert time.monotonic() - begun < 0.5


def _own_hints() -> list[str]:
    """The hints of podkiln's own sentences, as far as they are written out."""
    found: list[str] = []
    for path in (Path(__file__).resolve().parents[3] / "podkiln").rglob("*.py"):
        found += [
            str(node.value.value)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.keyword) and node.arg == "hint" and isinstance(node.value, ast.Constant)
        ]
    return found


def test_what_podkiln_says_itself_is_not_masked() -> None:
    hints = _own_hints()
    assert len(hints) > 50
    assert [hint for hint in hints if masking.masked(hint) != hint] == []
