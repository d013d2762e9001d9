"""Foreign text in sentences: on one line, without secrets, and never endless."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pod.util.masking import masked
from pod.util.printable import LONGEST, printable, shown

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "word",
    [
        "https://me:canary@files.test/a",
        "https://canary@files.test/a",
        "HTTPS://ME:canary@FILES.TEST",
        "ftp://me:canary@files.test/a",
        "//me:canary@files.test",
        "https:/me:canary@files.test/a",
        "https:me:canary@files.test/a",
        "http:\\\\me:canary@files.test",
        "https://me:can/canary@files.test",
        "https://me:p#canary@files.test",
        "https://me:p?canary@files.test/a",
        "https://me:12/canary@files.test/a",
        f"https://me:can@ary:canary@files.test/a#sha256={HEX}",
        "https://files.test/a,https://me:canary@files.test/b",
        "https://me:canary" + "x" * 5000 + "@files.test",
        "me:canary@files.test/a",
        "hf:me:canary@files.test",
        "hf:canary@files.test/a",
        "hf:me:canary:/@files.test/a",
        "me:canary:/p#x@files.test",
        "x=me:canary//p?x@files.test",
        "hf:me:/canary#x@files.test",
        "hf:org/repo@main:canary@files.test",
        "civitai:me:canary@files.test",
        "civitai:canary@2",
        "urn:air:sdxl:lora:civitai:1@me:canary@files.test",
        "vae=https://me:canary@files.test/a",
        "loras/a.safetensors=hf:me:canary@files.test",
        "https://user:canary@hub.test:8443/a/b?token=canary#x",
        "https://files.test/a?canary",
        "https://files.test/a?token=canary&x=1#canary",
        "https://files.test/a&token=canary",
        "https://files.test/a;token=canary",
        "https://files.test/a%3Ftoken%3Dcanary",
        "https://files.test/a?x=1&sig=canary'canary",
        "https://files.test/a#token=canary",
        "?api_key=canary",
        "hf:org/repo?token=canary",
        "civitai:1@2#token=canary",
        "HF_TOKEN=canary",
        "password='canary'",
        "Authorization: Bearer canary",
        "{'Authorization': 'Bearer canary'}",
        '{"authorization": "Basic canary="}',
        "curl -H 'X-Api-Key: canary' …",
        '{"token": "canary", "a": 1}',
        "{'hf_api_key': 'canary'}",
        "access_token: canary",
        "https://me:can canary@files.test",
        "https://me:can\ncanary@files.test",
        "Cookie: a=canary; session=canary",
        "sent Bearer canarycanary to it",
        "the token hf_canarycanarycanary is known",
        "'https://me:canary@files.test/a' is not an address.",
    ],
)
def test_no_secret_is_shown_however_it_is_written(word: str) -> None:
    assert "canary" not in shown(word)
    assert "canary" not in shown(f"MODELS: {word!r} cannot be read.")


@pytest.mark.parametrize(
    "word",
    [
        "civitai:328553@368189",
        "urn:air:sdxl:lora:civitai:328553@368189",
        "sdxl:lora:civitai:328553@368189",
        "hf:org/repo@rev/path/name.safetensors",
        "'hf:org/repo@rev'",
        "loras/mine.safetensors=civitai:1@2",
        "mine=hf:a/b@c/d@e.safetensors",
        "debian:trixie-slim@sha256:d7e12182",
        "docker-image://debian:trixie-slim@sha256:d7e12182",
        "localhost:5000/ns/image:tag@sha256:d7e12182",
        f"https://files.test/a.safetensors#sha256={HEX}",
        "https://github.com/x/y.git#2f35f4a08176d993cded35dac3332be4f7287f41",
        "git+https://github.com/x/y@v1.2",
        "http://127.0.0.1:8188/x",
        "me@files.test",
        "did you mean loras?",
        "HF_TOKEN is not set: set it.",
        "http://127.0.0.1:8188 is me@files.test",
        '{"tokens": 77, "name": "a"}',
    ],
)
def test_what_is_no_secret_stays_as_it_is(word: str) -> None:
    assert shown(word) == word


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("two\nlines\r", r"two\nlines\r"),
        ("\x1b[31mred\x00", r"\x1b[31mred\x00"),
        ("\x9b31m\x85", r"\x9b31m\x85"),  # C1: CSI and NEL
        ("a\u202eb\u2066c\u200fd", r"a\u202eb\u2066c\u200fd"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("caf\udce9", r"caf\udce9"),  # Latin-1 in the name of a file
        ("Übung 日本語 🙂", "Übung 日本語 🙂"),
        ("x" * 500, "x" * 200 + "…"),
        ("\n" * 500, r"\n" * 100 + "…"),
    ],
)
def test_what_is_not_printable_is_escaped_and_what_is_long_is_cut(text: str, said: str) -> None:
    assert printable(text) == said


@pytest.mark.parametrize(
    "piece",
    [
        "/",
        ":",
        "@",
        "a:",
        "//a:@",
        "?a=&",
        "#",
        "a-",
        "token",
        "[=:",
        " ",
        "cookie: ",
        "&x",
        "=:",
        "hf:",
        "\x1b",
    ],
)
def test_a_long_text_takes_no_longer_than_a_short_one(piece: str) -> None:
    text = piece * (2_000_000 // len(piece))
    begun = time.monotonic()
    assert len(shown(text)) <= LONGEST + 1
    assert time.monotonic() - begun < 0.25


@settings(max_examples=300, deadline=5000)
@given(st.text(max_size=400))
def test_any_text_becomes_one_printable_line(text: str) -> None:
    line = shown(text)
    assert line.isprintable()
    assert len(line) <= LONGEST + 1
    line.encode()  # no surrogate is left


@settings(max_examples=300, deadline=5000)
@given(
    st.text(st.characters(exclude_categories=["Z", "C"]), max_size=30),
    st.sampled_from(["https://", "http://", "hf:", "", "x=https://", "https:/"]),
    st.text(st.characters(exclude_categories=["Z", "C"]), max_size=30),
)
def test_any_password_before_a_host_is_left_out(before: str, scheme: str, after: str) -> None:
    assert "canary" not in masked(f"{scheme}me:{before}canary{after}@files.test/a")
