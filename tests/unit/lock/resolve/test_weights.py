"""Sizes, hashes and commits of weights: the real hub client against a local hub, and never a guess."""

from __future__ import annotations

import json
import re
import ssl
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from descriptions import FILE, SHA, model, write
from model_locks import civitai, entry, from_hub
from servers.hub import Hub
from servers.hub_content import make_file
from servers.hub_faults import Fault
from servers.package_index import certificates

from podkiln.lock.resolve import http
from podkiln.lock.resolve.errors import RefusedError, UnreachableError
from podkiln.lock.resolve.http import Web

if TYPE_CHECKING:
    from pathlib import Path

    from model_locks import ModelLocks


# --- Hugging Face


def test_size_hash_and_commit_come_from_the_hubs_listing(hub: Hub, house: ModelLocks) -> None:
    file = hub.add("org/repo", "model.safetensors", 5000)
    house.describe("mine", FILE)
    outcome = house.relock()
    assert house.only() == (hub.repositories["org/repo"].head, 5000, file.sha256)
    assert (outcome.count(resolved=True), outcome.warnings, outcome.problems) == (1, [], [])
    assert hub.served() == 0


def test_a_small_file_has_no_sha256_there_so_it_is_fetched_and_hashed(hub: Hub, house: ModelLocks) -> None:
    hub.add("org/repo", "config.json", b"{}", lfs=False)
    house.describe("mine", from_hub("config.json"))
    house.relock()
    assert house.only() == (hub.repositories["org/repo"].head, 2, sha256(b"{}").hexdigest())


def test_one_listing_serves_all_files_of_a_repository(hub: Hub, house: ModelLocks) -> None:
    for name in ("a", "b", "c"):
        hub.add("org/repo", f"{name}.safetensors", 500)
    house.describe("one", from_hub("a.safetensors"), from_hub("b.safetensors"))
    house.describe("two", from_hub("c.safetensors"))
    assert house.relock().count(resolved=True) == 3
    assert len([hit for hit in hub.hits if hit.path.startswith("/api/models/")]) == 1


def test_a_described_commit_is_the_one_that_is_asked_for(hub: Hub, house: ModelLocks) -> None:
    old = hub.add("org/repo", "model.safetensors", 500, seed=1)
    commit = hub.repositories["org/repo"].head
    hub.add("org/repo", "model.safetensors", 500, seed=2)
    house.describe("mine", from_hub(revision=commit))
    house.relock()
    assert house.only() == (commit, 500, old.sha256)


def test_trusted_facts_are_written_as_they_are_and_nobody_is_asked(hub: Hub, house: ModelLocks) -> None:
    house.describe("mine", from_hub(sha256=SHA, size=5))
    house.relock()
    assert house.only() == (None, 5, SHA)
    assert hub.hits == []


def test_a_missing_size_is_filled_in_where_the_hash_agrees(hub: Hub, house: ModelLocks) -> None:
    file = hub.add("org/repo", "model.safetensors", 5000)
    house.describe("mine", from_hub(sha256=file.sha256, size_approx=4000))
    house.relock()
    assert house.only() == (hub.repositories["org/repo"].head, 5000, file.sha256)


@pytest.mark.parametrize(
    ("facts", "key", "trusted"),
    [
        ({"sha256": SHA}, "sha256", SHA),
        ({"size": 7}, "size", "7"),
        ({"sha256": SHA, "size": 7}, "sha256", SHA),
    ],
)
def test_a_hub_that_contradicts_what_is_trusted(
    facts: dict[str, object], key: str, trusted: str, hub: Hub, house: ModelLocks
) -> None:
    """An error that names both; which of them is right, a person decides."""
    file = hub.add("org/repo", "model.safetensors", 5000)
    hub.add("org/repo", "open.safetensors", 5000)
    path = house.describe("mine", from_hub(**facts), from_hub("open.safetensors"))
    problem = house.relock().problems[0]
    there = {"sha256": file.sha256, "size": "5000"}[key]
    commit = hub.repositories["org/repo"].head
    assert problem == (
        f"{path}:7: files[0].{key}: {trusted} is trusted here (declared), "
        f"but huggingface:org/repo/model.safetensors at {commit} has {there}."
    )
    assert house.files("mine")[0].revision is None
    assert house.files("mine")[1].resolved


def test_what_was_found_is_kept_until_an_upgrade_is_asked_for(hub: Hub, house: ModelLocks) -> None:
    old = hub.add("org/repo", "model.safetensors", 500, seed=1)
    commit = hub.repositories["org/repo"].head
    house.describe("mine", FILE)
    house.describe("other", FILE.replace("checkpoints", "vae"))
    assert house.relock().changed == [house.lock]
    new = hub.add("org/repo", "model.safetensors", 500, seed=2)
    hub.hits.clear()
    assert house.relock().changed == []
    assert hub.hits == []
    house.relock("mine")
    assert house.only("mine")[2] == new.sha256
    assert house.only("other") == (commit, 500, old.sha256)
    house.relock("all")
    assert house.only("other")[2] == new.sha256


def test_an_upgrade_to_what_contradicts_keeps_what_was_found(hub: Hub, house: ModelLocks) -> None:
    """The commit that held the trusted file still does."""
    file = hub.add("org/repo", "model.safetensors", 500, seed=1)
    house.describe("mine", from_hub(sha256=file.sha256))
    house.relock()
    found = house.only()
    hub.add("org/repo", "model.safetensors", 500, seed=2)
    assert house.relock("mine").problems
    assert house.only() == found
    assert found[0]


def test_another_source_is_another_file(hub: Hub, house: ModelLocks) -> None:
    hub.add("org/repo", "model.safetensors", 500, seed=1)
    house.describe("mine", FILE)
    house.relock()
    fork = hub.add("org/fork", "model.safetensors", 600, seed=2)
    house.describe("mine", FILE.replace("org/repo", "org/fork"))
    house.relock()
    assert house.only()[1:] == (600, fork.sha256)


@pytest.mark.parametrize(
    ("described", "says"),
    [
        (
            from_hub("modle.safetensors"),
            "org/repo has no file 'modle.safetensors' at main; there is 'model.safetensors'",
        ),
        (from_hub(revision="0" * 40), f"org/repo has no revision '{'0' * 40}'"),
        (entry(huggingface="org/none", path="a.bin"), "has no repository org/none, or it is private"),
        (entry(huggingface="org/a--b", path="a.bin"), "'org/a--b' is not the name of a repository"),
    ],
)
def test_a_description_that_the_hub_does_not_know(
    described: str, says: str, hub: Hub, house: ModelLocks
) -> None:
    """Something for a person to correct: with file and line, and all other models locked all the same."""
    hub.add("org/repo", "model.safetensors", 500)
    path = house.describe("mine", described)
    house.describe("other", FILE)
    (problem,) = house.relock().problems
    assert problem.startswith(f"{path}:7: files[0]: ")
    assert says in problem
    assert house.only() == ((None, None, None) if "0" * 40 not in described else ("0" * 40, None, None))
    assert house.files("other")[0].resolved


def test_a_gated_repository_is_a_warning_with_what_to_do(
    hub: Hub, house: ModelLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/repo", "config.json", b"{}", lfs=False)
    hub.gate("org/repo", "hf_token_of_mine")
    house.describe("mine", from_hub("config.json"))
    (warning,) = house.relock().warnings
    assert warning == (
        f"mine: checkpoints/config.json: org/repo is gated: "
        f"accept its licence at {hub.url}/org/repo and set HF_TOKEN."
    )
    assert house.only() == (None, None, None)
    monkeypatch.setenv("HF_TOKEN", "hf_token_of_mine")
    assert house.relock().warnings == []
    assert house.files("mine")[0].resolved


def test_a_token_that_is_refused(hub: Hub, house: ModelLocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    hub.add("org/repo", "model.safetensors", 500)
    hub.fault(Fault("status", where="hub", status=401))
    house.describe("mine", FILE)
    (warning,) = house.relock().warnings
    assert "refused HF_TOKEN for org/repo (401): set a valid one." in warning
    assert "hf_expired" not in warning


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_answers_later_leaves_what_it_was_asked_for_unresolved(
    status: int, hub: Hub, house: ModelLocks
) -> None:
    """One sentence for all files, and each repository is asked for a few times at most."""
    hub.fault(Fault("status", where="hub", status=status, times=-1))
    house.describe("mine", FILE, from_hub("b.safetensors"))
    house.describe("other", entry(huggingface="org/other", path="c.bin"))
    outcome = house.relock()
    host = hub.url.removeprefix("http://")
    token = "; a token in HF_TOKEN raises its limit" if status == 429 else ""
    assert outcome.warnings == [
        f"3 files stay as they were: {host} could not be asked (it answered {status}{token})."
    ]
    assert outcome.problems == []
    assert outcome.count(resolved=False) == 3
    assert len(hub.hits) == 4 + 2


def test_without_a_network_nothing_is_invented_and_nothing_lost(
    hub: Hub, house: ModelLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/repo", "model.safetensors", 500)
    house.describe("mine", FILE)
    house.relock()
    found = house.only()
    house.describe("other", entry(huggingface="org/other", path="c.bin"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (warning,) = house.relock().warnings
    assert warning.startswith("1 file stays as it was: 127.0.0.1:9 could not be asked (")
    assert house.only("mine") == found
    assert house.only("other") == (None, None, None)


def test_a_small_file_that_comes_damaged_is_not_locked(hub: Hub, house: ModelLocks) -> None:
    hub.add("org/repo", "config.json", b"{}", lfs=False)
    hub.fault(Fault("flip", where="hub", match="/resolve/", times=-1))
    house.describe("mine", from_hub("config.json"))
    (warning,) = house.relock().warnings
    assert "config.json of org/repo came damaged" in warning
    assert house.only() == (None, None, None)


# --- CivitAI


def test_civitai_tells_hash_and_size(hub: Hub, house: ModelLocks) -> None:
    """The hash in capitals and the size in KiB there."""
    file = hub.add_civitai(90, "pony.safetensors", b"x" * 12345)
    house.describe("mine", civitai())
    assert house.relock().problems == []
    assert house.only() == (None, 12345, file.sha256)


def test_the_token_goes_to_civitai_in_a_header_and_only_there(
    hub: Hub, house: ModelLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIVITAI_TOKEN", "civ_secret")
    hub.add_civitai(90, "pony.safetensors", b"x")
    hub.add("org/repo", "model.safetensors", 500)
    house.describe("mine", civitai(), FILE)
    house.relock()
    sent = {hit.path.split("?")[0]: hit.authorization for hit in hub.hits}
    assert sent["/api/v1/model-versions/90"] == "Bearer civ_secret"
    assert sent["/api/models/org/repo/revision/main"] is None
    assert not any("civ_secret" in hit.path for hit in hub.hits)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"archived": True}, "version 90 on .* was archived at .* and can no longer be downloaded"),
        ({"fields": {"model": {"mode": "TakenDown"}}}, "was taken down at"),
        ({"fields": {"usageControl": "Generation"}}, "may be used on the site of .*, but not downloaded"),
        ({"fields": {"files": []}}, "lists no file at"),
        ({"row": {"virusScanResult": "Danger"}}, "reported as dangerous by the virus scanner"),
        ({"scan": "Danger"}, "reported as dangerous by the scanners"),
        ({"row": {"type": "Training Data"}}, "is training data at .*, and no model"),
        ({"row": {"name": "a.zip", "type": "Archive"}}, "has the file a.zip .*, which is not a model file"),
        ({"row": {"name": "a.gguf"}}, "has the file a.gguf .*, which cannot be called pony.safetensors"),
        ({"fields": {"model": {"type": "LORA"}}}, "is a LoRA there, which does not belong into checkpoints"),
        ({"fields": {"model": {"type": "Workflows"}}}, "is of the type Workflows, which is not a model"),
        ({"format": "PickleTensor"}, "is a pickle, which can run code: choose a safetensors version"),
    ],
)
def test_what_civitai_has_but_must_not_be_taken(
    fields: dict[str, object], says: str, hub: Hub, house: ModelLocks
) -> None:
    hub.add_civitai(90, "pony.safetensors", b"x", **fields)
    path = house.describe("mine", civitai())
    (problem,) = house.relock().problems
    assert problem.startswith(f"{path}:7: files[0]: ")
    assert re.search(says, problem), problem
    assert house.only() == (None, None, None)


@pytest.mark.parametrize(
    ("type_", "folder"),
    [
        ("LORA", "loras/styles"),
        ("LORA", "mine"),
        ("Checkpoint", "diffusion_models"),
        ("Controlnet", "model_patches"),
    ],
)
def test_a_folder_that_fits_or_is_a_nodes_own_is_taken(
    type_: str, folder: str, hub: Hub, house: ModelLocks
) -> None:
    file = hub.add_civitai(90, "pony.safetensors", b"x", fields={"model": {"type": type_}})
    house.describe("mine", civitai(folder=folder))
    assert house.relock().problems == []
    assert house.only() == (None, 1, file.sha256)


def test_an_answer_about_another_version_is_not_locked(hub: Hub, house: ModelLocks) -> None:
    hub.add_civitai(90, "pony.safetensors", b"x", fields={"id": 91})
    house.describe("mine", civitai())
    (warning,) = house.relock().warnings
    assert "answered with version 91 for 90" in warning
    assert house.only() == (None, None, None)


def test_a_disabled_repository_is_not_one_that_wants_a_login(hub: Hub, house: ModelLocks) -> None:
    said = "Access to this resource is disabled."
    hub.fault(Fault("status", where="hub", times=-1, status=403, error_message=said))
    house.describe("mine", FILE)
    (problem,) = house.relock().problems
    assert "has disabled org/repo: choose another source" in problem


WITHHELD = [
    ({"early_access_ends": "2999-01-01T00:00:00.000Z"}, "is in early access until 2999-01-01.*buy access"),
    ({"fields": {"availability": "EarlyAccess"}}, "is in early access at .*buy access"),
    ({"fields": {"status": "Draft"}}, r"is not published at .* \(Draft\), so only its owner"),
    ({"fields": {"availability": "Private"}}, "is private at"),
]


@pytest.mark.parametrize(("fields", "says"), WITHHELD)
def test_what_only_some_accounts_can_have_is_asked_for_with_a_token(
    fields: dict[str, object], says: str, hub: Hub, house: ModelLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was bought is not refused unasked."""
    hub.add_civitai(90, "pony.safetensors", b"x", **fields)
    house.describe("mine", civitai())
    outcome = house.relock()
    assert outcome.problems == []
    assert re.search(f"{says}.*; set CIVITAI_TOKEN", outcome.warnings[0]), outcome.warnings
    assert house.only() == (None, None, None)
    monkeypatch.setenv("CIVITAI_TOKEN", "civ_secret")
    outcome = house.relock()
    assert house.only()[2] is not None
    assert re.search(f"{says}.*; it is asked for with CIVITAI_TOKEN", outcome.warnings[0])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"fields": {"requireAuth": True}}, "requires a login"),
        ({"row": {"virusScanResult": "Error"}}, r"was not scanned for viruses by .* \(Error\)"),
        ({"scan": "Pending"}, r"was not scanned for code by .* \(Pending\)"),
    ],
)
def test_what_is_locked_with_a_word(
    fields: dict[str, object], says: str, hub: Hub, house: ModelLocks
) -> None:
    file = hub.add_civitai(90, "pony.safetensors", b"x", **fields)
    house.describe("mine", civitai())
    outcome = house.relock()
    assert house.only() == (None, 1, file.sha256)
    assert re.search(f"mine: checkpoints/pony.safetensors {says}", outcome.warnings[0]), outcome.warnings


def test_a_file_is_chosen_by_its_number(hub: Hub, house: ModelLocks) -> None:
    """High- and low-noise models come as two files of one version, alike in all but their number."""
    low = make_file("low.safetensors", b"low")
    hub.add_civitai(90, "high.safetensors", b"high", beside=((low, "Model", "SafeTensor"),))
    house.describe("mine", civitai(901))
    assert house.relock().problems == []
    assert house.only() == (None, 3, low.sha256)
    assert house.files("mine")[0].source == "civitai:45@90+901"
    house.describe("mine", civitai(999))
    (problem,) = house.relock("mine").problems
    assert "is not one of the files at" in problem
    assert "high.safetensors (+900), low.safetensors (+901)" in problem


def test_training_data_that_stands_first_is_not_the_model(hub: Hub, house: ModelLocks) -> None:
    model = make_file("a.safetensors", b"model")
    hub.add_civitai(90, "data.zip", b"images", beside=((model, "Model", "SafeTensor"),))
    version = hub.versions[90]
    version.files = lambda: [  # type: ignore[method-assign]
        (version.file, "Training Data", "Other"),
        *version.beside,
    ]
    house.describe("mine", civitai())
    assert house.relock().problems == []
    assert house.only() == (None, 5, model.sha256)


def test_early_access_that_is_over_is_none(hub: Hub, house: ModelLocks) -> None:
    hub.add_civitai(90, "pony.safetensors", b"x", early_access_ends="2020-01-01T00:00:00.000Z")
    house.describe("mine", civitai())
    assert house.relock().problems == []


def test_a_pickle_that_is_listed_by_hash_is_taken(hub: Hub, house: ModelLocks) -> None:
    file = hub.add_civitai(90, "pony.pt", b"x", format="PickleTensor")
    house.describe("mine", civitai(sha256=file.sha256))
    assert house.relock().problems == []
    assert house.only() == (None, 1, file.sha256)


@pytest.mark.parametrize(
    ("described", "says"),
    [
        (
            entry(civitai={"model": 45, "version": 91}, name="a.bin"),
            "has no version 91, or has it no longer (404)",
        ),
        (entry(civitai={"model": 44, "version": 90}, name="a.bin"), "version 90 belongs to model 45 on"),
    ],
)
def test_a_version_that_civitai_does_not_know(described: str, says: str, hub: Hub, house: ModelLocks) -> None:
    hub.add_civitai(90, "pony.safetensors", b"x")
    house.describe("mine", described)
    (problem,) = house.relock().problems
    assert says in problem


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("status", where="hub", status=401), "version 90 on .* requires a login: set CIVITAI_TOKEN"),
        (Fault("status", where="hub", status=503, times=-1), r"could not be asked \(it answered 503\)"),
        (Fault("html", where="hub", times=-1), r"answered 200 with a web page instead of JSON"),
    ],
)
def test_civitai_does_not_answer(fault: Fault, says: str, hub: Hub, house: ModelLocks) -> None:
    hub.add_civitai(90, "pony.safetensors", b"x")
    hub.fault(fault)
    house.describe("mine", civitai())
    (warning,) = house.relock().warnings
    assert re.search(says, warning), warning


# --- plain URLs and local files


def test_the_size_behind_a_url_is_asked_for_without_fetching_it(hub: Hub) -> None:
    """By the first byte: HEAD is refused by some who serve the file."""
    hub.add_file("a.bin", b"x" * 100_000)
    assert Web().size(f"{hub.url}/files/a.bin").size == 100_000
    assert [(hit.range, hit.status) for hit in hub.hits] == [("bytes=0-0", 206)]


def test_a_company_ca_is_trusted_where_it_is_named_and_not_after(tmp_path: Path) -> None:
    authority, server = certificates(tmp_path, "127.0.0.1")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(server)
    with Hub(tls=tls) as hub:
        hub.add_file("a.bin", b"x" * 5000)
        with http.trusting(authority):
            assert Web().size(f"{hub.url}/files/a.bin").size == 5000
        with http.trusting(None), pytest.raises(UnreachableError, match="certificate"):
            Web().size(f"{hub.url}/files/a.bin")


def test_a_server_that_ignores_ranges_tells_the_size_too(hub: Hub) -> None:
    hub.add_file("a.bin", b"x" * 5000)
    hub.fault(Fault("ignore-range", where="hub"))
    assert Web().size(f"{hub.url}/files/a.bin").size == 5000


def test_a_url_with_nothing_behind_it(hub: Hub) -> None:
    with pytest.raises(RefusedError, match="answered 404: the file is not there, or not public"):
        Web().size(f"{hub.url}/files/none.bin")


def test_a_local_file_is_hashed(house: ModelLocks) -> None:
    write(house.models / "weights.bin", "hello")
    house.describe("mine", entry(local="weights.bin"))
    house.relock()
    assert house.only() == (None, 5, sha256(b"hello").hexdigest())


def test_a_local_file_that_is_not_there(house: ModelLocks) -> None:
    path = house.describe("mine", entry(local="none.bin"))
    (problem,) = house.relock().problems
    assert problem.startswith(f"{path}:7: files[0]: the local file ")
    assert problem.endswith("none.bin cannot be read: No such file or directory.")


# --- the file itself


def test_the_lock_is_the_same_bytes_whatever_order_it_was_found_in(hub: Hub, house: ModelLocks) -> None:
    hub.add("org/repo", "model.safetensors", 500)
    house.describe("b", FILE)
    house.relock()
    house.describe("a", FILE.replace("checkpoints", "vae"))
    house.relock()
    first = house.lock.read_bytes()
    house.lock.unlink()
    house.relock()
    assert house.lock.read_bytes() == first
    assert list(json.loads(first)["models"]) == ["a", "b"]


def test_models_and_files_that_are_described_no_more_are_dropped(house: ModelLocks) -> None:
    house.describe("gone", from_hub(sha256=SHA, size=5))
    path = house.describe("mine", from_hub(sha256=SHA, size=5), from_hub("b.bin", sha256=SHA, size=5))
    house.relock()
    (house.models / "gone.yaml").unlink()
    path.write_text(model(from_hub(sha256=SHA, size=5)))
    house.relock()
    assert set(json.loads(house.lock.read_text())["models"]) == {"mine"}
    assert house.only() == (None, 5, SHA)
