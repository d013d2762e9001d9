"""Loading the parts of a pipeline that come from other places than the rest: transformer, VAE, ControlNet.

Imported once a pipeline is loaded: it takes torch and diffusers with it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import diffusers

from pod.util.article import an
from server.detection import weight_files
from server.detection.decision import GGUF, TRANSFORMER
from server.detection.facts import File
from server.loading.faults import LoadError, heard, told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from server.weights.model_files import Part, Resolved

    Say = Callable[[str], None]

SAFE: Final = {"use_safetensors": True, "local_files_only": True}
"""What every from_pretrained gets; `trust_remote_code` and `custom_pipeline` are never given."""
_LARGE: Final = re.compile(r"(?:transformer|unet|prior|decoder)(?:_2)?")


def variant(part: Part, folder: str = "") -> str | None:
    """Return the precision that stands in the names of a folder's files; the denoiser's by default."""
    files = [File(piece.path) for piece in part.pieces]
    if folder or any("/" not in file.path and file.name.endswith(".safetensors") for file in files):
        wanted = [file for file in files if file.folder == folder]
    else:
        wanted = [file for file in files if _LARGE.fullmatch(file.folder)] or files
    found = weight_files.variants(wanted)
    return weight_files.preferred(found) or next(iter(sorted(found)), "") or None


def denoisers(part: Part) -> list[str]:
    """Return the components that take most of the memory, by the folders that there are."""
    return sorted({each for piece in part.pieces if _LARGE.fullmatch(each := piece.path.partition("/")[0])})


def transformer(resolved: Resolved, dtype: Any, quantization: Any, say: Say) -> Any:
    """Load the component that a model is. Raises LoadError."""
    decision, part = resolved.decision, resolved.model
    cls = getattr(diffusers, decision.component)
    more: dict[str, Any] = {"quantization_config": quantization} if quantization else {}
    with told(f"{resolved.word} ({decision.component})"), heard(resolved.word, say):
        if decision.kind == TRANSFORMER and decision.layout == "diffusers":
            return cls.from_pretrained(str(part.folder), variant=variant(part), dtype=dtype, **SAFE, **more)
        if decision.kind == GGUF:
            more["quantization_config"] = diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
        if resolved.base is None:
            raise LoadError(f"{resolved.word} has no base: set BASE_MODEL.")
        return cls.from_single_file(
            str(part.first),
            config=str(resolved.base.folder),
            subfolder=decision.subfolder,
            dtype=dtype,
            local_files_only=True,
            **more,
        )


def beside(role: str, resolved: Resolved, dtype: Any, model_folder: Path | None, say: Say) -> Any:
    """Load what VAE or CONTROLNET names. Raises LoadError.

    Args:
        role: `vae` or `controlnet`.
        resolved: What the word led to.
        dtype: In which numbers.
        model_folder: The pipeline that it is put into; a single VAE file has its configuration from there.
        say: Takes sentences.
    """
    decision, part = resolved.decision, resolved.model
    cls = getattr(diffusers, decision.component, None)
    if cls is None:
        raise LoadError(
            f"{role.upper()}: {resolved.word} is {an(decision.component)}, which this diffusers lacks."
        )
    with told(f"{role.upper()}: {resolved.word} ({decision.component})"), heard(resolved.word, say):
        if decision.layout == "diffusers":
            more = {"subfolder": decision.subfolder} if decision.subfolder else {}
            named = variant(part, decision.subfolder)
            return cls.from_pretrained(str(part.folder), variant=named, dtype=dtype, **SAFE, **more)
        if role != "vae" or model_folder is None or not (model_folder / "vae/config.json").is_file():
            raise LoadError(
                f"{role.upper()}: {resolved.word} is a single file without a configuration: name a "
                "repository or folder with its config.json."
            )
        return cls.from_single_file(
            str(part.first),
            config=str(model_folder),
            subfolder="vae",
            dtype=dtype,
            local_files_only=True,
        )
