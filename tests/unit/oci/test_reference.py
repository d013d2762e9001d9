"""Names of images are read as Docker reads them; what Docker refuses, we refuse in one sentence."""

from __future__ import annotations

import pytest
from fuzz import value_or_sentence
from hypothesis import example, given, settings
from hypothesis import strategies as st

from podkiln.errors import UsageError
from podkiln.oci.reference import Reference

SHA = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "digest"),
    [
        ("debian", "docker.io", "library/debian", None, None),
        ("debian:trixie-slim", "docker.io", "library/debian", "trixie-slim", None),
        ("you/podkiln", "docker.io", "you/podkiln", None, None),
        ("docker.io/debian", "docker.io", "library/debian", None, None),
        ("index.docker.io/you/app:1", "docker.io", "you/app", "1", None),
        ("localhost/app", "localhost", "app", None, None),
        ("localhost:5000/app", "localhost:5000", "app", None, None),
        ("localhost:5000", "docker.io", "library/localhost", "5000", None),
        ("127.0.0.1:5000/ns/app:v1", "127.0.0.1:5000", "ns/app", "v1", None),
        ("[::1]:5000/ns/app:v1", "[::1]:5000", "ns/app", "v1", None),
        ("ghcr.io/you/podkiln:lazy", "ghcr.io", "you/podkiln", "lazy", None),
        ("Registry/app", "Registry", "app", None, None),
        (f"ghcr.io/you/app@{SHA}", "ghcr.io", "you/app", None, SHA),
        (f"ghcr.io/you/app:v1@{SHA}", "ghcr.io", "you/app", "v1", SHA),
        ("a.b/c-d/e__f/g.h_i--j:Tag_1.0-rc", "a.b", "c-d/e__f/g.h_i--j", "Tag_1.0-rc", None),
    ],
)
def test_names_are_read(text: str, host: str, repository: str, tag: str | None, digest: str | None) -> None:
    found = Reference.parse(text)
    assert (found.host, found.repository, found.tag, found.digest) == (host, repository, tag, digest)
    assert Reference.parse(str(found)) == found
    assert Reference.parse(found.familiar) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("https://ghcr.io/you/app", "scheme"),
        ("ghcr.io/you/app ", "blanks"),
        ("ghcr.io/you app/x", "blanks"),
        ("ghcr.io/You/app", "'You' has upper-case letters"),
        ("ghcr.io//app", "empty"),
        ("ghcr.io/app/", "empty"),
        ("/app", "empty"),
        ("ghcr.io/-app", "'-app'"),
        ("ghcr.io/a___b", "'a___b'"),
        ("ghcr.io/a..b", "'a..b'"),
        ("ghcr.io/../etc", "'..'"),
        ("ghcr.io/app:", "the tag ''"),
        ("ghcr.io/app:.v1", "the tag '.v1'"),
        ("ghcr.io/app:" + "x" * 129, "the tag"),
        ("ghcr.io/app@", "after '@' comes ''"),
        ("ghcr.io/app@sha256:abc", "after '@' comes 'sha256:abc'"),
        ("ghcr.io/app@" + SHA.upper(), "after '@'"),
        ("ghcr.io:99999/app", "99999 is not a port"),
        ("ghcr.io:x/app", "'ghcr.io:x' is not a host"),
        ("-bad.host/app", "is not a host"),
        ("ab" * 32, "image id"),
        ("ghcr.io/" + "a" * 255, "longer than 255"),
    ],
)
def test_malformed_names_are_one_sentence(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        Reference.parse(text)
    assert says in str(caught.value)
    assert str(caught.value).count("\n") == 0
    assert "HOST[:PORT]" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("full", "familiar"),
    [
        ("docker.io/library/debian:trixie", "debian:trixie"),
        ("docker.io/you/app", "you/app"),
        ("ghcr.io/you/app:v1", "ghcr.io/you/app:v1"),
    ],
)
def test_the_familiar_form_leaves_docker_hub_out(full: str, familiar: str) -> None:
    assert Reference.parse(full).familiar == familiar


def test_another_tag_forgets_the_digest() -> None:
    pinned = Reference.parse(f"ghcr.io/you/app:v1@{SHA}")
    assert str(pinned.with_tag("v2")) == "ghcr.io/you/app:v2"
    assert str(pinned.with_digest(None)) == "ghcr.io/you/app:v1"


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("GHCR.IO/you/app", "ghcr.io"),
        ("ghcr.io:443/you/app", "ghcr.io"),
        ("Ghcr.io:443/you/app:v1", "ghcr.io"),
        ("LOCALHOST:5000/app", "localhost:5000"),
        ("localhost:443/app", "localhost:443"),
        ("127.0.0.1:443/app", "127.0.0.1:443"),
        ("ghcr.io:8443/app", "ghcr.io:8443"),
        ("DOCKER.IO/you/app", "docker.io"),
        ("Index.Docker.io/you/app", "docker.io"),
        ("registry-1.docker.io/you/app", "docker.io"),
        ("registry-1.docker.io:443/debian", "docker.io"),
    ],
)
def test_one_registry_has_one_name(text: str, host: str) -> None:
    assert Reference.parse(text).host == host


@pytest.mark.parametrize(
    "text",
    [
        "me:s3cret@ghcr.io/you/app",
        "me:s3cret@localhost:5000/you/app:v1",
        f"me:s3cret@ghcr.io/you/app@{SHA}",
        "https://me:s3cret@ghcr.io/you/app",
        "https:/me:s3cret@ghcr.io",
        "me:s3c/s3cret@ghcr.io/you/app",
    ],
)
def test_a_login_in_a_name_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="it holds a login") as caught:
        Reference.parse(text)
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"


@settings(max_examples=500, deadline=5000)
@given(st.text(max_size=400) | st.from_regex(r"[a-zA-Z0-9.:/@_\[\]-]{0,60}", fullmatch=True))
@example("a:" + "9" * 6000 + "/x")
@example("[::1/x")
@example("x:²/y")
@example("a." * 50_000)
@example("a-" * 50_000 + "/")
@example("\ud800/x")
def test_any_text_is_a_name_or_one_sentence(text: str) -> None:
    found = value_or_sentence(lambda: Reference.parse(text))
    assert found is None or Reference.parse(str(found)) == found
