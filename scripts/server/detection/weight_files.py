"""The files of a component's folder: which weights to fetch, in which precision, and whether all are there.

Names: diffusers 0.42.1 utils/constants.py, models/model_loading_utils.py; transformers 5 modeling_utils.py.
"""

from __future__ import annotations

import re
from collections import defaultdict

from pod.util.dataclass import dataclass
from pod.util.pickles import is_pickle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from server.detection.facts import File

# model.safetensors, model.fp16.safetensors, model.fp16-00001-of-00002.safetensors (before diffusers 0.32) and
# model-00001-of-00002.fp16.safetensors.
_WEIGHTS = re.compile(
    r"(?P<stem>[A-Za-z_][\w-]*?)(?:\.(?P<before>\w+))?(?:-(?P<at>\d{5})-of-(?P<count>\d{5}))?"
    r"(?:\.(?P<after>\w+))?\.safetensors"
)
# diffusers and transformers put the variant in two places.
_INDEX = re.compile(r"[\w-]+\.safetensors(?:\.(?P<before>\w+))?\.index(?:\.(?P<after>\w+))?\.json")
_STEMS = ("diffusion_pytorch_model", "model")
_BESIDE = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".yaml")
_PREFERRED = ("bf16", "fp16", "")
"""Half as much to fetch, and pipelines compute in 16 bits."""


@dataclass(frozen=True)
class Weights:
    """The weights of one folder in one precision; `problem` is what is wrong with them, a clause."""

    variant: str
    files: tuple[File, ...]
    problem: str = ""


def weights(files: Iterable[File], variant: str | None = None) -> Weights | None:
    """Return the safe weights in a folder; None where there are none.

    Args:
        files: The files of the folder.
        variant: The precision that is wanted; another is taken where it is not there.
    """
    files = list(files)
    groups: dict[tuple[str, str], list[tuple[File, int, int]]] = defaultdict(list)
    for file in files:
        found = _WEIGHTS.fullmatch(file.name)
        if found and found["stem"] in _STEMS:
            key = (found["before"] or found["after"] or "", found["stem"])
            groups[key].append((file, int(found["at"] or 1), int(found["count"] or 1)))
    if not groups:
        return None
    order = [variant or "", *(each for each in ("", *_PREFERRED) if each != variant)]
    known = [name for name in order if any(key[0] == name for key in groups)]
    chosen = known[0] if known else min(groups)[0]
    stem = next(each for each in _STEMS if (chosen, each) in groups)
    return _checked(chosen, groups[chosen, stem], files)


def _checked(variant: str, group: Sequence[tuple[File, int, int]], files: Sequence[File]) -> Weights:
    """Return one precision: whole where it is in one file, else in as many pieces as their names say."""
    whole = [file for file, _, count in group if count == 1]
    if whole:
        return Weights(variant, tuple(whole[:1]))
    count = max(count for _, _, count in group)
    there = {at: file for file, at, of in group if of == count}
    pieces = tuple(there[at] for at in sorted(there))
    indexes = [file for file in files if (found := _INDEX.fullmatch(file.name)) and _fits(found, variant)]
    if lacking := [at for at in range(1, count + 1) if at not in there]:
        return Weights(variant, pieces, f"lacks piece {lacking[0]} of {count}")
    if not indexes:
        return Weights(
            variant, pieces, f"is in {count} pieces, and lacks the index that says what is in which"
        )
    return Weights(variant, (indexes[0], *pieces))


def _fits(found: re.Match[str], variant: str) -> bool:
    return (found["before"] or found["after"] or "") == variant


def variants(files: Iterable[File]) -> set[str]:
    """Return the precisions in which a folder has weights, by what stands in their names; "" for none."""
    found = (_WEIGHTS.fullmatch(file.name) for file in files)
    return {each["before"] or each["after"] or "" for each in found if each and each["stem"] in _STEMS}


def preferred(there: set[str]) -> str:
    """Return the precision to fetch of those that the largest component has."""
    return next((each for each in _PREFERRED if each in there), "")


def beside(files: Iterable[File]) -> list[File]:
    """Return what a component needs beside its weights: configuration, vocabularies, templates."""
    return [file for file in files if file.name.endswith(_BESIDE) and ".index." not in file.name
            and not file.name.endswith((".bin.index.json", ".msgpack.index.json"))]  # fmt: skip


def pickles(files: Iterable[File]) -> list[File]:
    """Return those whose loading can run code."""
    return [file for file in files if is_pickle(file.name)]
