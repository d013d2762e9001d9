"""The local hub is only worth something if the real client takes it for the real one."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from servers.hub import Hub
from servers.hub_content import generate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CANARY = "hf_canary"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


def test_the_real_client_reads_sizes_hashes_and_the_commit(hub: Hub) -> None:
    """`HfApi.model_info(files_metadata=True)` is what `lock` builds on."""
    weights = hub.add("org/repo", "unet/model.safetensors", 5000)
    config = hub.add("org/repo", "config.json", b"{}", lfs=False)
    info = HfApi(endpoint=hub.url).model_info("org/repo", files_metadata=True)
    assert info.sha == hub.repositories["org/repo"].head
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    lfs = siblings["unet/model.safetensors"].lfs
    assert lfs is not None
    assert (weights.sha256, 5000) == (lfs.sha256, lfs.size)
    assert siblings["config.json"].lfs is None
    assert siblings["config.json"].blob_id == config.git_oid
    assert siblings["config.json"].blob_id == "9e26dfeeb6e641a33dae4961196235bdb965b21b"  # git's own for `{}`


def test_an_old_commit_keeps_its_files(hub: Hub) -> None:
    old = hub.add("org/repo", "a.safetensors", 5000, seed=1)
    commit = hub.repositories["org/repo"].head
    new = hub.add("org/repo", "a.safetensors", 5000, seed=2)
    api = HfApi(endpoint=hub.url)
    for revision, expected in ((commit, old), ("main", new)):
        siblings = api.model_info("org/repo", revision=revision, files_metadata=True).siblings or []
        assert [expected.sha256] == [sibling.lfs.sha256 for sibling in siblings if sibling.lfs]


@pytest.mark.parametrize("lfs", [True, False])
def test_the_real_client_downloads(hub: Hub, tmp_path: Path, lfs: bool) -> None:
    """From the CDN without the token, or from the hub itself when git holds the file."""
    file = hub.add("org/repo", "sub/file.safetensors", 300_000, lfs=lfs)
    path = hf_hub_download(
        "org/repo", "sub/file.safetensors", endpoint=hub.url, cache_dir=tmp_path, token=CANARY
    )
    with open(path, "rb") as handle:  # noqa: PTH123 (the client returns a str)
        assert file.sha256 == hashlib.file_digest(handle, "sha256").hexdigest()
    assert {"cdn" if lfs else "hub"} == {hit.where for hit in hub.downloads()}
    assert not [hit for hit in hub.hits if hit.where == "cdn" and hit.authorization]


def test_the_real_client_knows_the_refusals(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/open", "a.safetensors", 500)
    hub.add("org/gated", "a.safetensors", 500)
    hub.gate("org/gated", CANARY)
    for repo, path, revision, refusal in (
        ("org/gated", "a.safetensors", None, GatedRepoError),
        ("org/none", "a.safetensors", None, RepositoryNotFoundError),
        ("org/open", "b.safetensors", None, RemoteEntryNotFoundError),
        ("org/open", "a.safetensors", "0" * 40, RevisionNotFoundError),
    ):
        with pytest.raises(refusal):
            hf_hub_download(repo, path, revision=revision, endpoint=hub.url, cache_dir=tmp_path, token=False)
    hf_hub_download("org/gated", "a.safetensors", endpoint=hub.url, cache_dir=tmp_path, token=CANARY)


def test_civitai_redirects_to_a_signed_url_and_refuses_head(hub: Hub) -> None:
    file = hub.add_civitai(290640, "pony.safetensors", generate(2000))
    with urllib.request.urlopen(f"{hub.url}/api/v1/model-versions/290640") as answer:
        assert file.sha256.upper() == json.load(answer)["files"][0]["hashes"]["SHA256"]
    with urllib.request.urlopen(f"{hub.url}/api/download/models/290640") as answer:
        assert answer.url.startswith(hub.cdn_url)
        assert file.sha256 == hashlib.sha256(answer.read()).hexdigest()


@pytest.mark.parametrize("size", [100, 2000, 10_000, 100_003])
def test_generated_safetensors_have_the_asked_size_and_a_right_header(size: int) -> None:
    data = generate(size, seed=7)
    header = int.from_bytes(data[:8], "little")
    tensor = json.loads(data[8 : 8 + header])["noise"]
    assert size == len(data) == 8 + header + tensor["data_offsets"][1]
    assert data == generate(size, seed=7) != generate(size, seed=8)


def test_the_hub_runs_as_a_process(tmp_path: Path) -> None:
    """Containers reach it by address; the hits are read over HTTP."""
    (tmp_path / "org/repo").mkdir(parents=True)
    (tmp_path / "org/repo/a.safetensors").write_bytes(b"weights")
    process = subprocess.Popen(
        [sys.executable, "tests/servers/hub.py", "--tree", str(tmp_path), "--gate", "org/repo=secret"],
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout
        ready = json.loads(process.stdout.readline())
        assert ready["files"]["org/repo/a.safetensors"]["size"] == 7
        request = urllib.request.Request(f"{ready['url']}/org/repo/resolve/main/a.safetensors")
        request.add_unredirected_header("Authorization", "Bearer secret")
        with urllib.request.urlopen(request) as answer:
            assert answer.read() == b"weights"
        with urllib.request.urlopen(f"{ready['url']}/_hits") as answer:
            assert [hit["where"] for hit in json.load(answer)] == ["hub", "cdn"]
        process.kill()
