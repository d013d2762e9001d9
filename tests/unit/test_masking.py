"""Logins and tokens are shown nowhere, however they were written; names that hold none stay readable."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from podkiln import masking, output
from podkiln.errors import UsageError
from podkiln.masking import Filter, masked

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _nothing_learnt() -> Iterator[None]:
    masking._known.clear()
    yield
    masking._known.clear()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:PW@h/x", "https://***@h/x"),
        ("https:/me:PW@h", "https:/***@h"),
        ("HTTPS://me:P@W@h/x", "HTTPS://***@h/x"),
        ("https://me:P/W@h/x", "https://***@h/x"),
        ("https://me:P?W#@h/x", "https://***@h/x"),
        ("https://ghp_token@github.com/x", "https://***@github.com/x"),
        ("//me:PW@h/x", "//***@h/x"),
        ("hf:me:PW@h", "***@h"),
        ("me:PW@host", "***@host"),
        ("me:P=W@localhost:5000/ns", "***@localhost:5000/ns"),
        ("--registry=me:PW@host/x", "--registry=***@host/x"),
        ("me:PW@host@sha256:abc", "***@host@sha256:abc"),
        ("comfyui=ssh://me:PW@h/r.git#abc", "comfyui=ssh://***@h/r.git#abc"),
        ("https://h/x?a=1&token=PW&b=2", "https://h/x?a=1&token=***&b=2"),
        ("x&X-Amz-Signature=PW", "x&X-Amz-Signature=***"),
        ("not 'me:PW@host/x', nor PIP='https://me:PW@h/simple'", "not '***@host/x', nor PIP='https://***@h/simple'"),
    ],
)  # fmt: skip
def test_a_login_is_hidden_however_it_is_written(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "ghcr.io/you/app:v1@sha256:ab",
        "docker-image://ghcr.io/you/base:tag@sha256:aa",
        "oci-layout:///x/y@sha256:aa",
        "git@github.com:you/x.git",
        "ssh://git@host/x.git",
        "https://h:8080/x@y",
        "mail me@x.org: hello",
        "localhost:5000/x",
    ],
)
def test_what_holds_no_login_stays_as_it_is(text: str) -> None:
    assert masked(text) == text


def test_what_was_learnt_is_hidden_where_nothing_marks_it() -> None:
    masking.learn(
        ["--python-index", "https://me:se%21cret,@h/simple"], {"HF_TOKEN": "hf_abc", "HOME": "/root"}
    )
    masking.learn(environment={"HTTPS_PROXY": "http://me:proxied@p:3128"})
    said = masked("se!cret, or se%21cret, or hf_abc or proxied in /root")
    assert said == "*** or *** or *** or *** in /root"


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_a_secret_is_cut_out_of_a_stream_wherever_it_is_split(size: int) -> None:
    masking.learn(["https://me:s3cret@h"])
    data = b"a s3cret and s3cre and s3s3crets3"
    cut = Filter()
    shown = b"".join(cut.feed(data[at : at + size]) for at in range(0, len(data), size)) + cut.rest()
    assert shown == b"a *** and s3cre and s3***s3"


def test_no_error_repeats_a_login(capsys: pytest.CaptureFixture[str]) -> None:
    output.failure(UsageError("Not me:PW@host/x\x1b[31m.", hint="Try https://me:PW@h?token=PW"))
    assert capsys.readouterr().err == "podkiln: Not ***@host/x [31m.\n    Try https://***@h?token=***\n"


@settings(max_examples=300, deadline=1000)
@given(st.text(max_size=300))
@example("://@:@")
@example("x://[::1")
def test_any_text_can_be_masked(text: str) -> None:
    masked(text)


LETTERS = st.text("abcXYZ019!$%^*+-._~|{};", min_size=4, max_size=20)


@settings(max_examples=300, deadline=1000)
@given(LETTERS, st.sampled_from(["https://me:{}@h/x", "https:/me:{}@h", "me:{}@h:5000/x", "HTTP://{}@h"]))
def test_no_password_comes_through(password: str, form: str) -> None:
    assert password not in masked(form.format(password)).replace("***", "")


@pytest.mark.parametrize(
    "text", ["a:", "//", "@", ":@", "?token", "https://", "a", "&k", "a=b", "a/@", "[", "="]
)
def test_it_takes_no_longer_for_what_is_built_to_take_long(text: str) -> None:
    begun = time.monotonic()
    masked(text * 100_000)
    assert time.monotonic() - begun < 0.5
