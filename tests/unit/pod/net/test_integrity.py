"""No web page and no half file is taken for weights."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest
from servers.hub_content import generate

from pod.net.http import RefusedError
from pod.net.integrity import HEADER_LIMIT, check_contents, check_type, digest, of_file

if TYPE_CHECKING:
    from pathlib import Path


def headed(header: bytes, payload: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + payload


TENSOR = {"w": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}
NO_SAFETENSORS = {
    "nothing": b"",
    "too short": b"\x02\0\0",
    "a web page": b"<!DOCTYPE html><html>Please log in</html>" * 10,
    "an LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "zeros": b"\0" * 4096,
    "a length beyond the file": headed(b"{}")[:-1],
    "no JSON": headed(b"{...}"),
    "JSON, but a list": headed(b"[]"),
    "a tensor without offsets": headed(b'{"w": {}}'),
    "a payload cut short": headed(json.dumps(TENSOR).encode(), b"abc"),
    "a payload too long": headed(json.dumps(TENSOR).encode(), b"abcde"),
    "a pickle": b"\x80\x02}q\x00." * 20,
}


@pytest.mark.parametrize("data", NO_SAFETENSORS.values(), ids=NO_SAFETENSORS)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file.part"
    path.write_bytes(data)
    for name in ("file.safetensors", "file.sft"):
        with pytest.raises(RefusedError, match=r"is not a \.safetensors file|its own header speaks of"):
            check_contents(path, name, vouched=True)
    check_contents(path, "file.ckpt", vouched=True)  # another format is not ours to judge


@pytest.mark.parametrize(
    "data",
    [
        generate(5000),
        headed(json.dumps({"__metadata__": {"format": "pt"}, **TENSOR}).encode(), b"abcd"),
        headed(b"{}"),
    ],
)
def test_safetensors_files_pass(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file.part"
    path.write_bytes(data)
    check_contents(path, "file.safetensors", vouched=False)


@pytest.mark.parametrize(
    ("content_type", "name", "passes"),
    [
        (None, "a.safetensors", True),
        ("application/octet-stream", "a.safetensors", True),
        ("binary/octet-stream", "a.ckpt", True),
        ("text/plain; charset=utf-8", "merges.txt", True),
        ("application/json", "config.json", True),
        ("TEXT/HTML; charset=utf-8", "a.safetensors", False),
        ("application/xhtml+xml", "a.bin", False),
        ("application/json; charset=utf-8", "a.safetensors", False),
        ("text/html", "config.json", False),
    ],
)
def test_pages_are_known_by_their_type(content_type: str | None, name: str, passes: bool) -> None:
    if passes:
        check_type(content_type, name, "hub")
        return
    with pytest.raises(RefusedError, match="hub answered with a page"):
        check_type(content_type, name, "hub")


def test_digests(tmp_path: Path) -> None:
    """Git's object id is git's own, asked of git."""
    path = tmp_path / "file"
    path.write_bytes(b"weights" * 1000)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest(of_file(path), 7000, "sha256:whatever") == f"sha256:{sha256}"
    git = subprocess.run(
        ["git", "hash-object", path], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert digest(of_file(path), 7000, "git:whatever") == f"git:{git}"


def test_a_header_of_640_bytes_is_no_pickle(tmp_path: Path) -> None:
    """Its length, in eight bytes, begins as a pickle of protocol 2 does."""
    path = tmp_path / "file.part"
    path.write_bytes(headed(b"{}" + b" " * 638))
    assert path.read_bytes().startswith(b"\x80\x02")
    check_contents(path, "file.safetensors", vouched=False)


def test_a_header_that_is_too_long_to_be_read_needs_somebody_who_vouches(tmp_path: Path) -> None:
    path = tmp_path / "file.part"
    path.write_bytes(headed(b"{}" + b" " * HEADER_LIMIT))
    check_contents(path, "file.safetensors", vouched=True)
    with pytest.raises(RefusedError, match=r"is not a \.safetensors file"):
        check_contents(path, "file.safetensors", vouched=False)


@pytest.mark.parametrize("name", ["a.pt", "a.CKPT ", "evil.pt.", "evil.pth.tar"])
def test_at_the_gate_a_pickle_by_its_name_needs_somebody_who_vouches(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file.part"
    path.write_bytes(b"anything")
    check_contents(path, name, vouched=True)
    with pytest.raises(RefusedError, match=r"is a pickle, which can run code .* no sha256 was given for it"):
        check_contents(path, name, vouched=False)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps({"a": 1}, protocol=2),
        pickle.dumps({"a": 1}, protocol=5),
        b"PK\x03\x04 and so on",
        b"\0" * 257 + b"ustar\x0000",
        b"cos\nsystem\n(S'id'\ntR.",
    ],
)
@pytest.mark.parametrize("name", ["a.gguf", "a.onnx", "a", "a.json", "a.dat"])
def test_at_the_gate_a_pickle_by_its_first_bytes_needs_somebody_too(
    tmp_path: Path, name: str, data: bytes
) -> None:
    path = tmp_path / "file.part"
    path.write_bytes(data)
    check_contents(path, name, vouched=True)
    with pytest.raises(RefusedError, match="whatever its name says, which can run code"):
        check_contents(path, name, vouched=False)


@pytest.mark.parametrize("protocol", [0, 1])
def test_at_the_gate_an_old_pickle_in_a_file_of_no_known_kind_needs_somebody(
    tmp_path: Path, protocol: int
) -> None:
    path = tmp_path / "file.part"
    path.write_bytes(pickle.dumps({"state_dict": PurePosixPath("/a"), "b": [1] * 500}, protocol=protocol))
    check_contents(path, "a.dat", vouched=True)
    with pytest.raises(RefusedError, match="is a pickle of an old protocol, whatever its name says"):
        check_contents(path, "a.dat", vouched=False)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("vocab.txt", b"cat\ndog\nmouse\n"),
        ("merges", b"cat\ndog\nmouse\n"),
        ("spiece.model", b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02\n\n"),
        ("LICENSE", b"copyright\nnotice\n(c) somebody\n"),
        ("a.gguf", b"GGUF\x03\0\0\0"),
        ("a.npy", b"\x93NUMPY\x01\0v\0{'descr': '<f4'}"),
        ("a", b""),
    ],
)
def test_at_the_gate_other_files_pass(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / "file.part"
    path.write_bytes(data)
    check_contents(path, name, vouched=False)
