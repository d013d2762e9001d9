"""COMFYUI_ARGS: what ComfyUI's parser would take is taken, all else is one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pod.errors import ARGUMENTS_REFUSED
from pod.flags.arguments import Catalogue, Flag, FlagUse, RefusedError, check_folders

if TYPE_CHECKING:
    from pathlib import Path

TAKEN = [
    ("", []),
    ("--cpu", ["--cpu"]),
    ("--port 9000", ["--port", "9000"]),
    ("--port=9000", ["--port", "9000"]),
    ("--listen --cpu", ["--listen", "--cpu"]),
    ("--listen 0.0.0.0 --cpu", ["--listen", "0.0.0.0", "--cpu"]),
    ("--fast --cpu", ["--fast", "--cpu"]),
    ("--fast autotune cublas_ops --cpu", ["--fast", "autotune", "cublas_ops", "--cpu"]),
    ("--cache-ram", ["--cache-ram"]),
    ("--cache-ram 2 4.5", ["--cache-ram", "2", "4.5"]),
    ("--whitelist-custom-nodes a b", ["--whitelist-custom-nodes", "a", "b"]),
    ("--feature-flag a=1 --feature-flag b", ["--feature-flag", "a=1", "--feature-flag", "b"]),
    ("--output-directory '/data/my out'", ["--output-directory", "/data/my out"]),
    ("--output-directory=-odd", ["--output-directory=-odd"]),
    ("--directml -1", ["--directml=-1"]),  # argparse takes -1 for a value where no flag is a number
    ("--verbose DEBUG /tmp/log --verbose", ["--verbose", "DEBUG", "/tmp/log", "--verbose"]),
    ("--fp8_e4m3fn-unet --bf16-vae --highvram", ["--fp8_e4m3fn-unet", "--bf16-vae", "--highvram"]),
]

REFUSED = [
    ("--lowvrm", "has no flag --lowvrm: did you mean --lowvram?"),
    ("--LOWVRAM", "has no flag --LOWVRAM: did you mean --lowvram?"),
    ("--use-sage-atention", "did you mean --use-sage-attention?"),
    ("--fp8-e4m3fn-unet", "did you mean --fp8_e4m3fn-unet?"),
    ("--no-half-vae-please", "has no flag --no-half-vae-please: remove it"),
    ("-cpu", "has no flag -cpu"),
    ("--novr", "not a full name: write --novram."),  # argparse would take these four for what they begin
    ("--reserve 1", "not a full name: write --reserve-vram."),
    ("--disable-xf", "not a full name: write --disable-xformers."),
    (
        "--cache",
        "could be --cache-classic, --cache-lru, --cache-none, --cache-ram: write one of them in full.",
    ),
    ("--offline", "--offline does not exist in ComfyUI 0.33.0, it came later: remove it."),
    ("--help", "--help would print ComfyUI's help and end it: remove it."),
    ("-h", "-h would print ComfyUI's help"),
    ("--cpu -- --novram", "'--' only announces values without a flag"),
    ("--lowvram --novram", "--lowvram and --novram exclude each other: keep one."),
    ("--highvram --medvram --cpu", "--highvram and --cpu exclude each other"),
    ("--cache-none --cache-lru 2", "--cache-none and --cache-lru exclude each other"),
    ("--bf16-unet --fp16-unet", "--bf16-unet and --fp16-unet exclude each other"),
    ("--use-sage-attention --use-flash-attention", "exclude each other"),
    ("--port", "--port needs a whole number from 1 to 65535 after it, and none follows."),
    ("--port --cpu", "--port needs a whole number from 1 to 65535 after it"),
    ("--port abc", "--port needs a whole number from 1 to 65535, not 'abc'."),
    ("--port 80.5", ", not '80.5'."),
    ("--port 0", ", not '0'."),
    ("--port 65536", ", not '65536'."),
    ("--reserve-vram", "--reserve-vram needs a number of at least 0 after it, and none follows."),
    ("--reserve-vram lots", ", not 'lots'."),
    ("--reserve-vram -2", ", not '-2'."),
    ("--reserve-vram nan", ", not 'nan'."),
    ("--reserve-vram inf", ", not 'inf'."),
    ("--cache-lru", "--cache-lru needs a whole number"),
    ("--cache-ram 1 2 3", "--cache-ram takes at most 2 values, but 3 follow it."),
    ("--cache-ram 1,2", ", not '1,2'."),
    ("--preview-method foo", "'foo' is not one of none, auto, latent2rgb, taesd."),
    ("--fast bogus", "'bogus' is not one of fp16_accumulation, fp8_matrix_mult, cublas_ops, autotune."),
    ("--default-hashing-function crc32", "'crc32' is not one of md5, sha1, sha256, sha512."),
    ("--verbose LOUD", "'LOUD' is not one of DEBUG, DETAIL, INFO, WARNING, ERROR, CRITICAL."),
    ("--verbose INFO a b", "--verbose takes at most 2 values, but 3 follow it."),
    ("--whitelist-custom-nodes", "--whitelist-custom-nodes needs a value after it"),
    ("--models-directory /not/there", "there is no folder '/not/there' in this pod"),
    ("--extra-model-paths-config /not/there.yaml", "there is no file '/not/there.yaml' in this pod"),
    ("--cpu=yes", "--cpu takes no value, so write --cpu without '=yes'."),
    ("--lowvram true", "--lowvram takes no value, but 'true' follows it: remove 'true'."),
    ("lowvram", "'lowvram' belongs to no flag: did you mean --lowvram?"),
    ("8188", "'8188' belongs to no flag"),
    ("--port 8188 8189", "'8189' belongs to no flag"),
    ("--port 8188 --port 9000", "--port is given twice (--port 8188 and --port 9000): keep one."),
    ("--output-directory 'unclosed", "a quotation mark is opened and not closed"),
    ("--cpu \\", "a backslash ends the line"),
    ('"--lowvram --cpu-vae"', "'--lowvram --cpu-vae' belongs to no flag"),  # one word: quoted once too often
]


@pytest.mark.parametrize(("text", "words"), TAKEN)
def test_what_comfyui_takes_is_taken(catalogue: Catalogue, text: str, words: list[str]) -> None:
    parsed = catalogue.parse_text(text, "COMFYUI_ARGS")
    assert words == [word for given in parsed.given for word in given.words()]
    assert parsed.notes == ()


@pytest.mark.parametrize(("text", "sentence"), REFUSED)
def test_nonsense_is_refused_in_one_sentence(catalogue: Catalogue, text: str, sentence: str) -> None:
    with pytest.raises(RefusedError) as refused:
        catalogue.parse_text(text, "COMFYUI_ARGS")
    assert sentence in str(refused.value)
    assert str(refused.value).startswith("COMFYUI_ARGS: ")
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == ARGUMENTS_REFUSED == 64


def test_the_tables_are_as_long_as_promised() -> None:
    assert len(REFUSED) >= 30


@pytest.mark.parametrize("name", ["--medvram", "--cpu-text-encoder", "--normalvram", "--medvram=1"])
def test_dead_flags_are_dropped_with_a_sentence(catalogue: Catalogue, name: str) -> None:
    parsed = catalogue.parse_text(f"--cpu-vae {name} --fast", "COMFYUI_ARGS")
    assert [given.flag.name for given in parsed.given] == ["--cpu-vae", "--fast"]
    (note,) = parsed.notes
    assert note.startswith(f"COMFYUI_ARGS: {name.partition('=')[0]} is dropped: ")


def test_the_same_thing_twice_is_once(catalogue: Catalogue) -> None:
    parsed = catalogue.parse_text("--cpu --cpu", "COMFYUI_ARGS")
    assert [str(given) for given in parsed.given] == ["--cpu"]
    assert parsed.notes == ("COMFYUI_ARGS: --cpu is given twice; once is enough.",)


def test_what_undoes_itself_is_taken_and_said(catalogue: Catalogue) -> None:
    """ComfyUI's parser takes both, so this is no reason to stop a boot."""
    parsed = catalogue.parse_text("--auto-launch --disable-auto-launch", "X")
    assert len(parsed.given) == 2
    assert parsed.notes == ("X: --auto-launch and --disable-auto-launch undo each other; one is enough.",)


def test_files_and_folders_are_looked_for(catalogue: Catalogue, tmp_path: Path) -> None:
    file = tmp_path / "extra.yaml"
    file.touch()
    text = f"--models-directory {tmp_path} --extra-model-paths-config {file}"
    assert catalogue.parse_text(text, "X").value("--models-directory") == str(tmp_path)
    with pytest.raises(RefusedError, match="there is no folder"):
        catalogue.parse_text(f"--models-directory {file}", "X")


def test_values_that_look_like_flags_keep_their_flag() -> None:
    """Written apart, ComfyUI would take -x for a flag."""
    assert FlagUse(Flag("--a", "one"), ("-x",)).words() == ["--a=-x"]
    assert FlagUse(Flag("--a", "one"), ("x",)).words() == ["--a", "x"]


def test_half_of_a_pair_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    """With a key alone ComfyUI would serve plain HTTP."""
    key = tmp_path / "key.pem"
    key.touch()
    for one, other in (("--tls-keyfile", "--tls-certfile"), ("--tls-certfile", "--tls-keyfile")):
        with pytest.raises(RefusedError, match=f"X: {one} does nothing without {other}: give both"):
            catalogue.parse_text(f"{one} {key}", "X")
    assert len(catalogue.parse_text(f"--tls-keyfile {key} --tls-certfile {key}", "X").given) == 2


def test_a_base_directory_needs_what_comfyui_lists_in_it(catalogue: Catalogue, tmp_path: Path) -> None:
    given = catalogue.parse_text(f"--base-directory {tmp_path}", "X").given
    with pytest.raises(RefusedError, match=r"X: --base-directory: there is no 'custom_nodes' in "):
        check_folders(given, "X")
    (tmp_path / "custom_nodes").mkdir()
    check_folders(given, "X")


@pytest.mark.parametrize("name", ["--oneapi-device-selector", "--supports-fp8-compute"])
def test_what_a_flag_for_other_cards_does_is_said(catalogue: Catalogue, name: str) -> None:
    assert catalogue.flags[name].note
