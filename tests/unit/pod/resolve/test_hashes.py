"""What nobody listed is asked for once, and expected ever after."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from servers.hub import Hub
from servers.hub_content import generate
from servers.hub_faults import Fault

from pod.model_refs.models_json import ModelFile
from pod.net.http import Limits, RefusedError
from pod.net.hubs import Hubs, request_for
from pod.net.transfer_policy import TransferPolicy
from pod.resolve.hashes import Resolved, Resolver
from pod.resolve.model_facts import Facts
from podkiln.config import model_types

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pod.resolve.hub_client import HubClient

FACTS = Facts(model_types.to_json)

POLICY = TransferPolicy(tries=3, backoff=0.01, limits=Limits(1, 0.3))


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


def resolver(hub: Hub, tmp_path: Path, **tokens: str) -> Resolver:
    hubs = Hubs(hub.url, hub.url, **tokens)
    return Resolver(tmp_path / ".podkiln/resolved.json", hubs, POLICY, threading.Event(), FACTS)


def file(name: str, source: dict[str, Any], sha256: str | None = None) -> ModelFile:
    return ModelFile("m", "vae", name, None, sha256, False, source)


def of_repo(path: str, revision: str | None = None) -> ModelFile:
    return file(path, {"kind": "huggingface", "repo": "o/r", "revision": revision, "path": path})


def resolve(resolver: Resolver, wanted: ModelFile) -> Resolved:
    return resolver.resolve(wanted, lambda _: None)


def test_a_listed_hash_asks_nobody(hub: Hub, tmp_path: Path) -> None:
    listed = file("a.ckpt", {"kind": "https", "url": "https://files.test/a.ckpt"}, "ab" * 32)
    assert resolve(resolver(hub, tmp_path), listed) == Resolved("sha256:" + "ab" * 32, None, None)
    assert not hub.hits


def test_the_hubs_own_hash_size_and_commit(hub: Hub, tmp_path: Path) -> None:
    weights = hub.add("o/r", "a.safetensors", 2000)
    config = hub.add("o/r", "config.json", b"{}", lfs=False)
    commit = hub.repositories["o/r"].head
    asked = resolver(hub, tmp_path)
    assert resolve(asked, of_repo("a.safetensors")) == Resolved(f"sha256:{weights.sha256}", 2000, commit)
    assert resolve(asked, of_repo("config.json")) == Resolved(f"git:{config.git_oid}", 2, commit)
    assert len(hub.hits) == 1  # one repository, one question


def test_a_later_start_expects_the_same_bytes(hub: Hub, tmp_path: Path) -> None:
    hub.add("o/r", "a.safetensors", 2000)
    first = resolve(resolver(hub, tmp_path), of_repo("a.safetensors"))
    hub.add("o/r", "a.safetensors", 2000, seed=1)
    assert resolve(resolver(hub, tmp_path), of_repo("a.safetensors")) == first
    record = json.loads((tmp_path / ".podkiln/resolved.json").read_text())
    assert list(record["files"]) == ["huggingface:o/r@main/a.safetensors"]


def test_a_pinned_revision_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    old = hub.add("o/r", "a.safetensors", 2000)
    commit = hub.repositories["o/r"].head
    hub.add("o/r", "a.safetensors", 2000, seed=1)
    found = resolve(resolver(hub, tmp_path), of_repo("a.safetensors", commit))
    assert found == Resolved(f"sha256:{old.sha256}", 2000, commit)


@pytest.mark.parametrize("damage", ["", "[]", '{"files": []}', '{"files": null}'])
def test_a_damaged_record_is_asked_for_again(hub: Hub, tmp_path: Path, damage: str) -> None:
    weights = hub.add("o/r", "a.safetensors", 2000)
    (tmp_path / ".podkiln").mkdir()
    (tmp_path / ".podkiln/resolved.json").write_text(damage)
    assert resolve(resolver(hub, tmp_path), of_repo("a.safetensors")).expected == f"sha256:{weights.sha256}"


@pytest.mark.parametrize("revision", ["d" * 40, "refs/pr/1", None])
def test_a_record_does_not_move_a_file_to_another_commit(
    hub: Hub, tmp_path: Path, revision: str | None
) -> None:
    weights = hub.add("o/r", "a.safetensors", 2000)
    commit = hub.repositories["o/r"].head
    key = f"huggingface:o/r@{commit}/a.safetensors"
    row = {"expected": f"sha256:{'e' * 64}", "size": None, "revision": revision}
    (tmp_path / ".podkiln").mkdir()
    (tmp_path / ".podkiln/resolved.json").write_text(json.dumps({"schema": 1, "files": {key: row}}))
    found = resolve(resolver(hub, tmp_path), of_repo("a.safetensors", commit))
    assert found == Resolved(f"sha256:{weights.sha256}", 2000, commit)


def test_a_busy_hub_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    hub.add("o/r", "a.safetensors", 2000)
    hub.fault(Fault("status", where="hub", status=429, retry_after="0", times=2))
    assert resolve(resolver(hub, tmp_path), of_repo("a.safetensors")).size == 2000


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.ckpt", "a.bin", "a.pkl"])
def test_an_unlisted_pickle_is_refused_before_anybody_is_asked(hub: Hub, tmp_path: Path, name: str) -> None:
    with pytest.raises(RefusedError, match="put its size and sha256 into"):
        resolve(resolver(hub, tmp_path), of_repo(name))
    assert not hub.hits


def test_a_failure_is_asked_for_once_a_run(hub: Hub, tmp_path: Path) -> None:
    hub.fault(Fault("status", where="hub", status=500, times=-1))
    asked = resolver(hub, tmp_path)
    for name in ("a.safetensors", "b.safetensors"):
        with pytest.raises(RefusedError, match="did not come in 3 tries"):
            resolve(asked, of_repo(name))
    assert len(hub.hits) == 3


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (None, "is not in http.*o/r: b.safetensors was renamed or removed"),
        (Fault("html", where="hub"), "did not answer with JSON"),
        (Fault("status", where="hub", status=200), "is not in http"),
        (Fault("status", where="hub", status=401, error_code="RepoNotFound"), "private or does not exist"),
    ],
)
def test_what_the_hub_cannot_tell_is_said(
    hub: Hub, tmp_path: Path, fault: Fault | None, sentence: str
) -> None:
    hub.add("o/r", "a.safetensors", 2000)
    if fault:
        hub.fault(fault)
    with pytest.raises(RefusedError, match=sentence):
        resolve(resolver(hub, tmp_path), of_repo("b.safetensors"))


def test_a_plain_address_needs_a_listed_hash(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no listed sha256"):
        resolve(
            resolver(hub, tmp_path), file("a.safetensors", {"kind": "https", "url": f"{hub.url}/files/a"})
        )


CIVITAI = {"kind": "civitai", "version": 7}


def test_civitais_hash(hub: Hub, tmp_path: Path) -> None:
    weights = hub.add_civitai(7, "a.safetensors", generate(2000))
    found = resolve(resolver(hub, tmp_path, civitai_token="t"), file("a.safetensors", CIVITAI))
    assert found == Resolved(f"sha256:{weights.sha256}", None, None)
    assert hub.hits[0].authorization == "Bearer t"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"archived": True}, "was archived"),
        ({"early_access_ends": "2999-01-01T00:00:00.000Z"}, "early access until 2999"),
        ({"format": "PickleTensor"}, "is a pickle"),
    ],
)
def test_what_civitai_does_not_give_is_refused(
    hub: Hub, tmp_path: Path, fields: dict[str, Any], sentence: str
) -> None:
    hub.add_civitai(7, "a.safetensors", generate(2000), **fields)
    with pytest.raises(RefusedError, match=sentence):
        resolve(resolver(hub, tmp_path), file("a.safetensors", CIVITAI))


def test_past_early_access_is_no_hindrance(hub: Hub, tmp_path: Path) -> None:
    hub.add_civitai(7, "a.safetensors", generate(2000), early_access_ends="2001-01-01T00:00:00.000Z")
    assert resolve(resolver(hub, tmp_path), file("a.safetensors", CIVITAI)).expected.startswith("sha256:")


# --- whatever a hub says

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SIBLING = st.fixed_dictionaries(
    {"rfilename": st.just("a.safetensors") | VALUES},
    optional={
        "size": st.integers(-1, 10) | VALUES,
        "blobId": st.just("a" * 40) | VALUES,
        "lfs": st.fixed_dictionaries({"sha256": st.just("b" * 64) | VALUES}) | VALUES,
    },
)
LISTING = st.fixed_dictionaries(
    {},
    optional={"sha": st.just("c" * 40) | VALUES, "siblings": st.lists(SIBLING | VALUES, max_size=3) | VALUES},
)


class _Answers:
    """A hub that gives one answer to all."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def json(self, *_: Any) -> Any:
        return self.answer


@settings(max_examples=120, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=LISTING | VALUES)
@example(answer={"sha": "a/../b", "siblings": [{"rfilename": "a.safetensors", "size": 1, "blobId": "x"}]})
@example(
    answer={"sha": 5, "siblings": [{"rfilename": "a.safetensors", "size": 1, "lfs": {"sha256": "b" * 64}}]}
)
@example(answer={"siblings": [5]})
def test_any_listing_gives_what_to_expect_or_one_sentence(tmp_path: Path, answer: Any) -> None:
    source = {"kind": "huggingface", "repo": "o/r", "revision": None, "path": "a.safetensors"}
    wanted = ModelFile("m", "vae", "a.safetensors", None, None, False, source)
    hubs = Hubs("http://hub.test", "http://hub.test")
    asked = Resolver(tmp_path / "r.json", hubs, POLICY, threading.Event(), FACTS)
    (tmp_path / "r.json").unlink(missing_ok=True)
    asked.asker = cast("HubClient", _Answers(answer))
    said = ""
    try:
        found = asked.resolve(wanted, lambda _: None)
        request_for(source, hubs, found.revision)
        assert asked.resolve(wanted, lambda _: None) == found
        assert found.expected.partition(":")[0] in {"sha256", "git"}
    except RefusedError as refused:
        said = str(refused)
    assert "\n" not in said
    assert len(said) < 600
