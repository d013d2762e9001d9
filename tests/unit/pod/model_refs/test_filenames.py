"""No name from outside leads out of its folder, hides, or breaks what stands beside a file."""

from __future__ import annotations

import time

import pytest

from pod.model_refs import filenames
from pod.util import pickles


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("add-detail-xl.safetensors", "add-detail-xl.safetensors"),
        ("Füßchen v2.safetensors", "Füßchen v2.safetensors"),
        ("e\u0301.safetensors", "\u00e9.safetensors"),  # one spelling of a letter, or two files look alike
        ("../../etc/cron.d/x.pt", "x.pt"),
        ("C:\\Windows\\x.pt", "x.pt"),
        ("/x.pt", "x.pt"),
        (".hidden.pt", "hidden.pt"),
        ("-rf.pt", "rf.pt"),
        ("a\x00b\x1b[31m\n.pt", "ab[31m.pt"),
        ("a\u202egnp.pt", "agnp.pt"),  # writes the rest backwards
        ('a<b>:"|?*.pt', "a_b______.pt"),
        ("CON.safetensors", "_CON.safetensors"),
        ("com1", "_com1"),
        ("a.pt. . ", "a.pt"),
        ("  a   b .pt", "a b.pt"),
        ("x" * 300 + ".safetensors", "x" * 188 + ".safetensors"),
        ("ß" * 150 + ".pt", "ß" * 98 + ".pt"),
    ],
)
def test_names_of_servers_are_mended(raw: str, name: str) -> None:
    mended = filenames.safe(raw)
    assert mended == name
    assert len(mended.encode()) <= filenames.LONGEST
    assert filenames.safe(mended) == mended


@pytest.mark.parametrize("raw", ["", ".", "..", "a/", "...", "\x00", "/", "??", f"a.{'x' * 250}"])
def test_what_leaves_no_name_is_refused(raw: str) -> None:
    with pytest.raises(ValueError, match="is not a file name"):
        filenames.safe(raw)


def test_longest_leaves_room_for_what_stands_beside_a_file() -> None:
    for beside in (".corrupt-20260101T000000Z", ".verified.json"):
        assert len(f".{'x' * filenames.LONGEST}{beside}.1234567") <= 255


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.SAFETENSORS", ".safetensors"),
        ("a.b.ckpt", ".ckpt"),
        ("a.gguf", ".gguf"),
        ("a.zip", ""),
        ("pt", ""),
    ],
)
def test_endings(name: str, suffix: str) -> None:
    assert filenames.suffix(name) == suffix


LETTERS = ["\u0301", "\u0345\u0301\u0323", "a", ".", "/", " ", "\U000e0001", "\ufdfa"]


@pytest.mark.parametrize("letter", LETTERS)
def test_a_name_of_a_megabyte_takes_no_time(letter: str) -> None:
    begun = time.process_time()
    for raw in (letter * 1_000_000, f"a{letter * 1_000_000}.pt"):
        try:
            name = filenames.safe(raw)
        except ValueError as wrong:
            name = str(wrong)
        assert len(name.encode(errors="replace")) <= 1000
        pickles.is_pickle(raw)
    assert time.process_time() - begun < 5
