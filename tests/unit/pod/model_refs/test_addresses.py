"""All the ways in which people write where a file is, and what is wrong with those that name none."""

from __future__ import annotations

from typing import Any

import pytest

from pod.model_refs import addresses
from pod.model_refs.addresses import ModelRefError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def huggingface(path: str = "a.safetensors", revision: str = "main") -> dict[str, Any]:
    return {"kind": "huggingface", "repo": "org/re-po.1", "revision": revision, "path": path}


def civitai(**more: Any) -> dict[str, Any]:
    return {"kind": "civitai", "version": 368189, "model": 328553, **more}


@pytest.mark.parametrize(
    ("address", "word", "source"),
    [
        ("hf:org/re-po.1/a.safetensors", "hf:org/re-po.1@main/a.safetensors", huggingface()),
        ("HF:org/re-po.1@v1/a.safetensors", "hf:org/re-po.1@v1/a.safetensors", huggingface(revision="v1")),
        (
            f"hf:org/re-po.1@{COMMIT}/x/y.safetensors",
            f"hf:org/re-po.1@{COMMIT}/x/y.safetensors",
            huggingface("x/y.safetensors", COMMIT),
        ),
        (
            "hf:org/re-po.1@refs/pr/3/a.safetensors",
            "hf:org/re-po.1@refs/pr/3/a.safetensors",
            huggingface(revision="refs/pr/3"),
        ),
        (
            "hf://org/re-po.1@refs%2Fpr%2F3/a%20b.safetensors?download=true",
            "hf:org/re-po.1@refs/pr/3/a b.safetensors",
            huggingface("a b.safetensors", "refs/pr/3"),
        ),
        (
            "https://huggingface.co/org/re-po.1/blob/main/x/a.safetensors?download=true",
            "hf:org/re-po.1@main/x/a.safetensors",
            huggingface("x/a.safetensors"),
        ),
        (
            f"https://HF.co/org/re-po.1/resolve/{COMMIT}/a%2Bb.safetensors",
            f"hf:org/re-po.1@{COMMIT}/a+b.safetensors",
            huggingface("a+b.safetensors", COMMIT),
        ),
        (
            "https://huggingface.co/org/re-po.1/resolve/refs/pr/3/a.safetensors",
            "hf:org/re-po.1@refs/pr/3/a.safetensors",
            huggingface(revision="refs/pr/3"),
        ),
        ("civitai:328553@368189", "civitai:328553@368189", civitai()),
        ("civitai:328553@368189+77", "civitai:328553@368189+77", civitai(file=77)),
        ("civitai:328553@368189?fileId=77", "civitai:328553@368189+77", civitai(file=77)),
        (
            "https://civitai.com/models/328553?modelVersionId=368189&fileId=77",
            "civitai:328553@368189+77",
            civitai(file=77),
        ),
        (
            "https://civitai.com/api/download/models/368189?fileId=77&token=canary",
            "https://civitai.com/api/download/models/368189?fileId=77",
            {"kind": "civitai", "version": 368189, "file": 77},
        ),
        (
            "https://civitai.com/api/download/models/368189?type=Pruned%20Model&quantType=Q8_0",
            "https://civitai.com/api/download/models/368189?type=Pruned%20Model&quantType=Q8_0",
            {
                "kind": "civitai",
                "version": 368189,
                "choice": {"type": "Pruned Model", "quantType": "Q8_0"},
            },
        ),
        ("https://civitai.com/models/328553?modelVersionId=368189", "civitai:328553@368189", civitai()),
        (
            "https://www.civitai.com/models/328553/add-detail-xl?modelVersionId=368189&x=1",
            "civitai:328553@368189",
            civitai(),
        ),
        (
            "https://civitai.com/api/download/models/368189?type=Model&format=SafeTensor&token=canary",
            "https://civitai.com/api/download/models/368189?type=Model&format=SafeTensor",
            {
                "kind": "civitai",
                "version": 368189,
                "choice": {"type": "Model", "format": "SafeTensor"},
            },
        ),
        (
            "https://civitai.com/model-versions/368189",
            "https://civitai.com/api/download/models/368189",
            {"kind": "civitai", "version": 368189},
        ),
        (
            "https://Files.test:8443/a.safetensors?token=canary",
            "https://Files.test:8443/a.safetensors",
            {"kind": "https", "url": "https://Files.test:8443/a.safetensors?token=canary"},
        ),
    ],
)
def test_what_names_a_file(address: str, word: str, source: dict[str, Any]) -> None:
    found = addresses.read(address, vouched=True)
    assert (found.word, found.source) == (word, source)
    assert addresses.read(found.word, vouched=True).word == word  # what is shown can be given again
    assert "canary" not in repr(found)


@pytest.mark.parametrize(
    ("air", "kind"),
    [
        ("urn:air:sdxl:lora:civitai:328553@368189", "lora"),
        ("air:sdxl:checkpoint:civitai:328553@368189", "checkpoint"),
        ("URN:AIR:SDXL:LORA:CIVITAI:328553@368189", "lora"),
        ("urn:air:civitai:328553@368189", None),
    ],
)
def test_airs_in_full_and_without_what_may_be_left_out(air: str, kind: str | None) -> None:
    found = addresses.read(air, vouched=False)
    assert (found.source, found.kind) == (civitai(), kind)


def test_an_airs_format_and_file_are_not_dropped() -> None:
    found = addresses.read("urn:air:sdxl:embedding:civitai:328553@368189.safetensor", vouched=False)
    assert (found.source, found.kind) == (civitai(choice={"format": "SafeTensor"}), "embedding")
    found = addresses.read("urn:air:sdxl:lora:civitai:328553@368189+77", vouched=False)
    assert found.source == civitai(file=77)


@pytest.mark.parametrize(
    "query",
    [
        "fileId=77&fileId=78",
        "fileId=x",
        "fileId=\u00b2",
        "fileId=7" + "7" * 30,
        "modelFileId=77",
        "file_id=77",
        "type=a%0Ab",
        "type=" + "x" * 100,
        "type=VAE&type=Model",
        "modelVersionId=1&modelVersionId=2",
        "modelVersionId=3",
    ],
)
def test_a_number_that_selects_is_never_dropped(query: str) -> None:
    with pytest.raises(ModelRefError):
        addresses.read(f"https://civitai.com/api/download/models/368189?{query}", vouched=True)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("civitai:1@2?modelVersionId=3", "names two versions"),
        ("civitai:1@2+3?fileId=4", "by something else than one number"),
        ("lora:civitai:1@2.zip", "which is not a format of CivitAI"),
        ("civitai:368189", "could be a model or a version: write both, civitai:MODEL@VERSION"),
        ("civitai:add-detail", "write civitai:MODEL@VERSION, such as civitai:328553@368189"),
        ("civitai:1@2@3", "names no version on CivitAI"),
        ("https://civitai.com/models/328553/add-detail-xl", "choose the version on the page"),
        ("https://civitai.com/models/328553?modelVersionId=new", "choose the version on the page"),
        ("https://civitai.com/images/1", "is not the page of a model on CivitAI"),
        ("urn:air:model:huggingface:stabilityai/sdxl-vae", "is an AIR of huggingface"),
        ("urn:isbn:0451450523", "is not the AIR of a file"),
        ("hf:org", "names no file on Hugging Face"),
        ("hf:org/repo", "names a repository or a folder"),
        ("hf:org/repo@main/folder/", "names a repository or a folder"),
        ("https://huggingface.co/org/repo", "open the file's page and copy its address"),
        ("https://huggingface.co/org/repo/tree/main/x", "open the file's page and copy its address"),
        ("https://huggingface.co/datasets/org/repo/resolve/main/a.bin", "is in a data set or a space"),
        ("hf:spaces/org/repo/a.bin", "is in a data set or a space"),
        ("hf:org/repo/../../x.safetensors", "has a path that cannot be in a repository"),
        ("hf:org/repo/%2e%2e/x.safetensors", "has a path that cannot be in a repository"),
        ("hf:org/repo/a%0Ab.safetensors", "has a path that cannot be in a repository"),
        ("hf:org/repo@a%20b/x.safetensors", "where a commit, branch or tag is expected"),
        ("https://", "is not an address"),
        ("https://h:80x/a", "is not an address"),
        ("https://[::1/a", "is not an address"),
        *[
            (f"https://{host}/a.safetensors", "there is no such host name: copy the address again")
            for host in (
                *("a..b", ".a", "a..", ".", "..", f"{'a' * 64}.test", f"{'a.' * 126}ab", "a b.test", "a%2eb"),
                *("a,b.test", f"{'ä' * 60}.test", "ä..test", "a\u3002\u3002b", "a*.test"),
            )
        ],
        ("https://me:canary@files.test/a", "holds a login, which is not sent"),
        ("https://me:canary@huggingface.co/o/r/resolve/main/a.sft", "holds a login, which is not sent"),
        ("https://me:canary@civitai.com/models/1?modelVersionId=2", "holds a login, which is not sent"),
        ("https://civitai.com/models/1?modelVersionId=2,sdxl-base", "has a comma after its '?'"),
    ],
)
def test_what_names_none_is_said(address: str, sentence: str) -> None:
    with pytest.raises(ModelRefError) as caught:
        addresses.read(address, vouched=True)
    assert sentence in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "a.test.", "my_bucket.s3-x.test", "xn--mig-xla.test", "mäßig.test", "127.0.0.1"),
        *("[::1]:80", f"{'a' * 63}.test", f"{'a.' * 126}a"),
    ],
)
def test_a_host_that_can_be_is_taken(host: str) -> None:
    url = f"https://{host}/a.safetensors"
    assert addresses.read(url, vouched=True).source["url"] == url


def test_nobody_vouches_for_a_plain_address_without_a_hash() -> None:
    with pytest.raises(ModelRefError, match="add #sha256= and the 64 hex digits"):
        addresses.read("https://files.test/a.safetensors", vouched=False)
    for page in ("hf:org/repo/a.safetensors", "civitai:1@2"):  # the hubs vouch for theirs
        assert addresses.read(page, vouched=False)
