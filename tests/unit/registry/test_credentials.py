"""Logins come from the Docker config and its helpers, as Docker finds them, and are never shown."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from fuzz import value_or_sentence
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from podkiln.errors import RegistryError
from podkiln.registry import credentials
from podkiln.registry.credentials import Credentials, lookup

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cret:with-colon"
AUTH = base64.b64encode(f"me:{SECRET}".encode()).decode()
ME = Credentials("me", SECRET)


def write(path: Path, config: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def helper(path: Path, monkeypatch: pytest.MonkeyPatch, script: str, name: str = "fake") -> None:
    """Put a credential helper on the PATH."""
    program = path / "bin" / f"docker-credential-{name}"
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("ghcr.io", "ghcr.io"),
        ("ghcr.io", "https://ghcr.io"),
        ("ghcr.io", "https://ghcr.io/v2/"),
        ("localhost:5000", "localhost:5000"),
        ("localhost:5000", "http://localhost:5000/v1/"),
        ("docker.io", "https://index.docker.io/v1/"),
    ],
)
def test_a_login_is_found_under_every_key_docker_writes(tmp_path: Path, host: str, key: str) -> None:
    write(tmp_path, {"auths": {"other.io": {"auth": "eDp5"}, key: {"auth": AUTH}}})
    assert lookup(host, tmp_path) == ME


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"auth": AUTH}, ME),
        ({"username": "me", "password": SECRET}, ME),
        ({"auth": AUTH, "identitytoken": "idt"}, Credentials("me", SECRET, "idt")),
        ({"identitytoken": "idt"}, Credentials("", "", "idt")),
        ({}, None),
        ({"auth": ""}, None),
        ({"auth": base64.b64encode(b"me").decode()}, None),
        ("text", None),
    ],
)
def test_entries(tmp_path: Path, entry: Any, found: Credentials | None) -> None:
    assert lookup("ghcr.io", write(tmp_path, {"auths": {"ghcr.io": entry}})) == found


@pytest.mark.parametrize("config", [{}, {"auths": {}}, {"auths": None}, {"auths": {"a.io": {"auth": AUTH}}}])
def test_no_login_is_none(tmp_path: Path, config: Any) -> None:
    assert lookup("ghcr.io", write(tmp_path, config)) is None
    assert lookup("ghcr.io", tmp_path / "nothing-here") is None


def test_docker_config_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "elsewhere", {"auths": {"ghcr.io": {"auth": AUTH}}})
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "elsewhere"))
    assert lookup("ghcr.io") == ME
    monkeypatch.delenv("DOCKER_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / ".docker", {"auths": {"ghcr.io": {"username": "home", "password": "x"}}})
    assert lookup("ghcr.io") == Credentials("home", "x")


@pytest.mark.parametrize(
    "config", [{"credsStore": "fake"}, {"credHelpers": {"ghcr.io": "fake"}, "credsStore": "no"}]
)
def test_a_helper_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Any) -> None:
    helper(
        tmp_path,
        monkeypatch,
        '[ "$1" = get ] && read server; [ "$server" = ghcr.io ] && '
        'echo \'{"ServerURL":"ghcr.io","Username":"me","Secret":"s3cret:with-colon"}\'',
    )
    assert lookup("ghcr.io", write(tmp_path, config)) == ME


def test_a_helper_may_hold_an_identity_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, """echo '{"Username":"<token>","Secret":"idt"}'""")
    assert lookup("ghcr.io", write(tmp_path, {"credsStore": "fake"})) == Credentials("", "", "idt")


def test_a_helper_that_knows_nothing_leaves_it_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(tmp_path, monkeypatch, "echo credentials not found in native keychain; exit 1")
    write(tmp_path, {"credsStore": "fake", "auths": {"ghcr.io": {"auth": AUTH}}})
    assert lookup("ghcr.io", tmp_path) == ME


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo keychain is locked; exit 1", "docker-credential-fake failed for ghcr.io: keychain is locked"),
        ("echo boom >&2; exit 2", "failed for ghcr.io: boom"),
        (f"echo not-json-{SECRET}", "did not answer with a login"),
        ("echo '[]'", "did not answer with a login"),
        ("echo '{}'", "did not answer with a login"),
        ("exec sleep 60", "did not answer within 0.2 s"),
    ],
)
def test_a_failing_helper_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    helper(tmp_path, monkeypatch, script)
    monkeypatch.setattr(credentials, "_HELPER_SECONDS", 0.2 if "sleep" in script else 10)
    with pytest.raises(RegistryError) as caught:
        lookup("ghcr.io", write(tmp_path, {"credsStore": "fake"}))
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_missing_helper_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="docker-credential-gone, which is not on the PATH"):
        lookup("ghcr.io", write(tmp_path, {"credHelpers": {"ghcr.io": "gone"}}))
    assert lookup("quay.io", tmp_path) is None


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ({"auths": {"ghcr.io": {"auth": "%%"}}}, "not base64"),
    ],
)
def test_a_broken_config_is_one_sentence(tmp_path: Path, config: Any, says: str) -> None:
    with pytest.raises(RegistryError, match=says):
        lookup("ghcr.io", write(tmp_path, config))


def test_secrets_are_not_shown() -> None:
    assert "sesame" not in repr(Credentials("me", "sesame", "sesame"))


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("ghcr.io", "GHCR.IO"),
        ("GHCR.IO", "ghcr.io"),
        ("ghcr.io", "https://ghcr.io:443"),
        ("docker.io", "docker.io"),
        ("docker.io", "registry-1.docker.io"),
        ("docker.io", "https://Index.Docker.io/v2/"),
    ],
)
def test_a_registry_is_known_by_any_of_its_names(tmp_path: Path, host: str, key: str) -> None:
    write(tmp_path, {"auths": {key: {"auth": AUTH}}})
    assert lookup(host, tmp_path) == ME


def test_the_name_as_docker_writes_it_comes_first(tmp_path: Path) -> None:
    other = base64.b64encode(b"other:pw").decode()
    write(tmp_path, {"auths": {"GHCR.IO": {"auth": other}, "ghcr.io": {"auth": AUTH}}})
    assert lookup("ghcr.io", tmp_path) == ME


def test_a_helper_is_known_by_any_name_of_its_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(tmp_path, monkeypatch, 'echo \'{"Username":"me","Secret":"s3cret:with-colon"}\'')
    assert lookup("ghcr.io", write(tmp_path, {"credHelpers": {"GHCR.IO": "fake"}})) == ME


@pytest.mark.parametrize("name", ["../x", "a b", "\0", "\ud800", "x" * 5000])
def test_a_helper_that_is_no_name_is_one_sentence(tmp_path: Path, name: str) -> None:
    value_or_sentence(lambda: lookup("ghcr.io", write(tmp_path, {"credsStore": name})))
    with pytest.raises(RegistryError, match="not a valid name"):
        lookup("ghcr.io", tmp_path)


ANSWERS = [b"[" * 100_000, b"\xff", b'{"Username":1,"Secret":[]}', b"9" * 6000, b'{"Username":"me"}', b""]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_odd_answer_of_a_helper_is_one_sentence(answer: bytes) -> None:
    with pytest.raises(RegistryError, match="did not answer with a login"):
        credentials._from_answer(answer, "docker-credential-x")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@hypothesis_settings(
    max_examples=200, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.tuples(st.sampled_from(["ghcr.io", "GHCR.IO", "https://ghcr.io/v1/"]), JSON).map(
        lambda pair: json.dumps({"auths": {pair[0]: pair[1]}}).encode()
    )
    | st.dictionaries(st.sampled_from(["auth", "username", "password", "identitytoken"]), JSON).map(
        lambda entry: json.dumps({"auths": {"ghcr.io": entry}}).encode()
    )
)
@example(b"[" * 100_000)
@example(b'{"auths":' * 50_000)
@example(b'{"auths":{"ghcr.io":{"username":"\\ud800","password":"\\udfff"}}}')
@example(b'{"credHelpers":{"ghcr.io":["x"]},"credsStore":{}}')
@example(b"9" * 6000)
def test_any_docker_config_is_a_login_none_or_one_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.json").write_bytes(data)
    found = value_or_sentence(lambda: lookup("ghcr.io", tmp_path))
    assert found is None or all(isinstance(part, str) for part in (found.username, found.password))
