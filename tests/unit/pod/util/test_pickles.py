"""Which names and which bytes can run code: one rule for builder and pod, in whatever form a name comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pod.model_refs import filenames
from pod.util import pickles
from podkiln.config.model import ModelFile


@pytest.mark.parametrize(
    "name",
    [
        *("a.pt", "a.pt2", "A.PTH", "a.ckpt", "x/a.bin", "a.pkl", "a.pth.tar", "a.ckpt.gz", "a.pickle"),
        *("a.joblib", "a.dill", ".pt", "a.bin.1", "a.safetensors.pt"),
        # what is trimmed or folded on the way to a name that is written
        *("evil.pt.", "evil.ckpt ", "evil.pt . ", "evil. pt", "evil.pt\t", "evil.pt\u200b", "evil.p\u00adt"),
        *("evil\uff0ept", "evil\u3002pt", "evil\uff61ckpt", "evil\u2024pt", "evil.\uff30\uff34"),
        # what belongs to an address, or to a stream of NTFS
        *("evil.pt?download=1", "evil.ckpt:$DATA", "evil.pt/"),
    ],
)
def test_a_pickle_is_known_in_every_form_of_its_name(name: str) -> None:
    assert pickles.is_pickle(name)
    assert not pickles.is_pickle(f"{name}.safetensors")


@pytest.mark.parametrize("name", ["", "pt", "a.safetensors", "a.pth.safetensors", "a.gguf", "apt", "a.ptx"])
def test_other_names_are_none(name: str) -> None:
    assert not pickles.is_pickle(name)


@given(
    stem=st.text(max_size=20),
    suffix=st.sampled_from(sorted(pickles.SUFFIXES)),
    end=st.text(alphabet=". \t\u200b\u00ad\u202e\u3000", max_size=5),
)
def test_a_name_that_is_written_as_a_pickles_was_judged_as_one(stem: str, suffix: str, end: str) -> None:
    """What is judged is never less than what is written."""
    raw = f"{stem}{suffix}{end}"
    try:
        written = filenames.safe(raw)
    except ValueError:
        return
    if written.lower().endswith(suffix):
        assert pickles.is_pickle(raw)
        assert pickles.is_pickle(written)


@pytest.mark.parametrize("suffix", sorted(pickles.SUFFIXES))
def test_the_builder_judges_by_the_same_list(suffix: str) -> None:
    for name in (f"a{suffix}", f"a{suffix.upper()}", f"a{suffix}.tar"):
        file = ModelFile(huggingface="o/r", path=name, folder="vae", sha256="unresolved")
        assert file.pickle
    assert not ModelFile(huggingface="o/r", path="a.gguf", folder="vae", sha256="unresolved").pickle
