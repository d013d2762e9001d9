"""Sources become requests with the right token; malformed settings and refusals become sentences."""

from __future__ import annotations

from typing import Any

import pytest
from servers.hub import Hub
from servers.hub_faults import Fault

from pod.errors import SETTING_MALFORMED, PodError
from pod.net.http import Credential, Limits, RefusedError, TransientError
from pod.net.hubs import CIVITAI, HUGGINGFACE, Hubs, Request, request_for

HF = {"kind": "huggingface", "repo": "org/repo", "revision": None, "path": "a b/c#1.safetensors"}
HUBS = Hubs(hf_token="hf", civitai_token="cv")


@pytest.mark.parametrize(
    ("source", "revision", "url", "token"),
    [
        (HF, None, f"{HUGGINGFACE}/org/repo/resolve/main/a%20b/c%231.safetensors", "hf"),
        (HF, "c0ffee", f"{HUGGINGFACE}/org/repo/resolve/c0ffee/a%20b/c%231.safetensors", "hf"),
        ({**HF, "revision": "refs/pr/1"}, "c0ffee", f"{HUGGINGFACE}/org/repo/resolve/refs%2Fpr%2F1/", "hf"),
        ({"kind": "civitai", "version": 290640}, None, f"{CIVITAI}/api/download/models/290640", "cv"),
        ({"kind": "https", "url": "https://files.test/a?x=1"}, None, "https://files.test/a?x=1", None),
        (
            {"kind": "https", "url": f"{HUGGINGFACE}/o/r/resolve/main/a"},
            None,
            f"{HUGGINGFACE}/o/r/resolve",
            "hf",
        ),
        ({"kind": "https", "url": f"{HUGGINGFACE}.evil.test/a"}, None, f"{HUGGINGFACE}.evil.test/a", None),
    ],
)
def test_requests(source: dict[str, Any], revision: str | None, url: str, token: str | None) -> None:
    request = request_for(source, HUBS, revision)
    assert request.url.startswith(url)
    assert (request.credential.token if request.credential else None) == token


def test_a_mirror_takes_the_hubs_place_and_its_token() -> None:
    hubs = Hubs.from_environment({"HF_ENDPOINT": "https://mirror.test/hf/", "HF_TOKEN": " hf_x\n"})
    request = request_for(HF, hubs)
    assert request.url.startswith("https://mirror.test/hf/org/repo/resolve/main/")
    assert request.credential == Credential("https://mirror.test:443", "hf_x", "HF_TOKEN")


def test_empty_variables_are_not_set() -> None:
    environment = dict.fromkeys(("HF_ENDPOINT", "HF_TOKEN", "CIVITAI_ENDPOINT", "CIVITAI_TOKEN"), "")
    assert Hubs.from_environment(environment) == Hubs()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HF_ENDPOINT", "mirror.test"),
        ("HF_ENDPOINT", "ftp://mirror.test"),
        ("HF_ENDPOINT", "https://"),
        ("HF_ENDPOINT", "https://mirror.test:x"),
        ("HF_ENDPOINT", "https://user:canary@mirror.test"),
        ("CIVITAI_ENDPOINT", "https://mirror.test/?token=canary"),
        ("CIVITAI_ENDPOINT", "http://[::1"),
        ("HF_TOKEN", "hf_canary\r\nX-Evil: 1"),
        ("HF_TOKEN", "hf canary"),
        ("CIVITAI_TOKEN", "canary\N{EN DASH}"),
    ],
)
def test_malformed_settings_are_one_sentence_without_the_value(variable: str, value: str) -> None:
    with pytest.raises(PodError, match=variable) as caught:
        Hubs.from_environment({variable: value})
    assert caught.value.exit_code == SETTING_MALFORMED
    assert "canary" not in str(caught.value)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(RefusedError, match="unknown kind 'torrent'"):
        request_for({"kind": "torrent"}, HUBS)


def test_tokens_are_in_no_repr() -> None:
    """A traceback or a debug print must not show them."""
    hubs = Hubs(hf_token="canary", civitai_token="canary")
    assert "canary" not in f"{hubs!r} {hubs.credential('HF_TOKEN')!r} {request_for(HF, hubs)!r}"


PAGE = "https://hub.test/org/repo"
TOKEN = Credential("https://hub.test:443", "t", "HF_TOKEN")


@pytest.mark.parametrize(
    ("status", "code", "credential", "parts"),
    [
        (401, "GatedRepo", None, ("login", "accept the licence", PAGE, "HF_TOKEN")),
        (401, "RepoNotFound", None, ("private or does not exist", PAGE, "HF_TOKEN")),
        (401, None, TOKEN, ("HF_TOKEN is wrong, expired or revoked", PAGE)),
        (401, "GatedRepo", TOKEN, ("no access", "accept the licence", PAGE)),
        (403, "GatedRepo", TOKEN, ("no access", "accept the licence", PAGE)),
        (404, "EntryNotFound", None, ("not there", "404", "correct its source")),
        (404, "RevisionNotFound", None, ("revision", PAGE)),
        (410, None, None, ("gone", "410", PAGE)),
        (451, None, None, ("451", PAGE)),
    ],
)
def test_refusals_say_what_to_do(
    status: int, code: str | None, credential: Credential | None, parts: tuple[str, ...]
) -> None:
    sentence = Request(f"{PAGE}/a?sig=secret", PAGE, credential, "HF_TOKEN").refusal(status, code)
    assert [part for part in parts if part not in sentence] == []
    assert "secret" not in sentence


def test_without_a_hub_no_token_is_asked_for() -> None:
    assert "no token" in Request("https://files.test/a", "https://files.test/a").refusal(403, None)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("token", [None, "hf_mine"])
@pytest.mark.parametrize("kind", ["huggingface", "civitai", "https"])
def test_a_token_that_would_raise_the_limit_is_named(kind: str, token: str | None, status: int) -> None:
    """And the wait that the hub asks for is known, by whichever header it came."""
    with Hub() as hub:
        hub.fault(Fault("status", where="hub", status=status, rate_limit='"api";r=0;t=240'))
        hubs = Hubs(hub.url, hub.url, hf_token=token, civitai_token=token)
        sources: dict[str, dict[str, Any]] = {
            "huggingface": {**HF},
            "civitai": {"kind": "civitai", "version": 5},
            "https": {"kind": "https", "url": hub.url.replace("127.0.0.1", "localhost") + "/files/a"},
        }
        with pytest.raises(TransientError) as raised:
            request_for(sources[kind], hubs).send(Limits())
    assert raised.value.retry_after == 240
    variable = {"huggingface": "HF_TOKEN", "civitai": "CIVITAI_TOKEN"}.get(kind)
    named = status == 429 and variable and not token
    host = "localhost" if kind == "https" else "127.0.0.1"
    assert str(raised.value) == f"{host} answers {status}" + (
        f"; a token in {variable} raises its limit" if named else ""
    )
