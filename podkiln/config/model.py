"""A model: one YAML file in variants/models/, with the facts about its files, licence and needs.

Hashes are honest: a sha256 stands only where a source that we trust showed it (CONTRIBUTING.md);
everything else is the word `unresolved`, and `lock` fills it in where the hub answers.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, field_validator, model_validator

from pod.util.pickles import is_pickle
from podkiln.config.document import StrictModel, TupleOf
from podkiln.config.fields import HttpsUrl, Identifier, Revision, SafePath, Text, distinct, safe_path
from podkiln.config.messages import PatternType
from podkiln.util.quoting import shown

UNRESOLVED = "unresolved"
RESERVED = frozenset({"all", "none"})  # what the variable MODELS says in a pod besides ids
TRUSTED = frozenset({"hf_page", "curated", "manifest", "declared"})
LARGEST_FILE = 1 << 43  # bytes: 8 TiB
_NO_FILE = {"0" * 64, hashlib.sha256().hexdigest()}

Tier: TypeAlias = Literal["consumer", "prosumer", "datacenter"]
Confidence: TypeAlias = Literal[
    "hf_page", "curated", "manifest", "upstream", "reupload", "estimate", "declared"
]
Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "fp8", "nvfp4", "int8", "mixed"]
Task: TypeAlias = Literal["image", "video", "other"]
MemoryMode: TypeAlias = Literal[
    "model_full_load",
    "model_cpu_offload",
    "sequential_cpu_offload",
    "model_full_load_and_qfloat8",
    "model_cpu_offload_and_qfloat8",
]


Sha256 = Annotated[
    str,
    PatternType(rf"^([0-9a-f]{{64}}|{UNRESOLVED})$", "a sha256 of 64 lower-case hex digits, or 'unresolved'"),
]
RepoId = Annotated[
    str, PatternType(r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$", "a repository, owner/name")
]
EnvName = Annotated[
    str, PatternType(r"^ENABLE_[A-Z0-9][A-Z0-9_]*$", "a variable, ENABLE_ and capitals, digits and _")
]
Requirement = Annotated[
    str, PatternType(r"^(node|model|runtime|weights):\S+$", "node:, model:, runtime: or weights: and a name")
]
Gigabytes = Annotated[float, Field(ge=0, le=4096)]


class CivitaiVersion(StrictModel):
    """A version on CivitAI, as its AIR names it: urn:air:…:civitai:<model>@<version>."""

    model: Annotated[int, Field(gt=0)]
    version: Annotated[int, Field(gt=0)]
    file: Annotated[int, Field(gt=0)] | None = Field(
        None, description="Number of one of the version's files; the main one by default."
    )


class ModelFile(StrictModel):
    """One file: where it comes from (exactly one source), where it goes, and what it must hash to."""

    huggingface: RepoId | None = None
    revision: Revision | None = Field(
        None, description="Commit on the hub. May be left out: the hash decides."
    )
    path: SafePath | None = Field(None, description="Path inside the Hugging Face repository.")
    civitai: CivitaiVersion | None = None
    url: HttpsUrl | None = None
    local: Text | None = Field(
        None, description="A file on the builder, relative to the YAML file; only baked."
    )

    folder: SafePath = Field(description="Folder below models/, such as checkpoints or text_encoders.")
    name: SafePath | None = Field(None, description="File name in the folder; the source's own by default.")
    size: Annotated[int, Field(gt=0, le=LARGEST_FILE)] | None = Field(
        None, description="Exact size in bytes."
    )
    size_approx: Annotated[int, Field(gt=0, le=LARGEST_FILE)] | None = Field(
        None, description="Approximate size in bytes, where the exact one is not known."
    )
    sha256: Sha256
    confidence: Confidence = "declared"
    precision: Precision | None = None
    optional: bool = Field(False, description="Offered, but not fetched with the model unless asked for.")
    note: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ModelFile:
        given = [name for name in ("huggingface", "civitai", "url", "local") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(
                f"exactly one of huggingface, civitai, url or local names the source; found {found}"
            )
        if self.huggingface and not self.path:
            raise ValueError("a huggingface source needs the key path")
        if not self.huggingface and (self.path or self.revision):
            raise ValueError("path and revision belong to a huggingface source")
        if self.civitai and not self.name:
            raise ValueError("a civitai source needs the key name: its URL does not show one")
        safe_path(self.filename)  # the source's own name, where none is given
        if self.url and not self.name and not PurePosixPath(self.filename).suffix:
            raise ValueError(
                f"the URL ends in {shown(self.filename)}, which has no file ending: "
                "expected the key name with the name of the file, such as model.safetensors"
            )
        return self

    @model_validator(mode="after")
    def _honest_hash(self) -> ModelFile:
        if self.sha256 != UNRESOLVED and self.confidence not in TRUSTED:
            raise ValueError(
                f"a hash of confidence {self.confidence!r} is not to be trusted: write 'unresolved'"
            )
        if self.sha256 in _NO_FILE:
            raise ValueError("this is the sha256 of an empty file, or a placeholder: write 'unresolved'")
        if self.url and self.sha256 == UNRESOLVED:
            raise ValueError("a url source needs a sha256: nothing else says what will come")
        if self.size and self.size_approx:
            raise ValueError("size and size_approx exclude each other")
        return self

    @property
    def filename(self) -> str:
        """Path below the folder."""
        source = self.path or self.url or self.local or ""
        return self.name or PurePosixPath(source.split("?")[0]).name

    @property
    def destination(self) -> str:
        """Path below models/."""
        return f"{self.folder}/{self.filename}"

    @property
    def locked(self) -> bool:
        """Whether hash and exact size are known, so that the file can be baked."""
        return self.sha256 != UNRESOLVED and self.size is not None

    def same_as(self, other: ModelFile) -> bool:
        """Whether two descriptions mean the same bytes: one hash, or for want of one the same source."""
        if self.sha256 != UNRESOLVED or other.sha256 != UNRESOLVED:
            return self.sha256 == other.sha256
        sources = ("huggingface", "revision", "path", "civitai", "local")
        return all(getattr(self, key) == getattr(other, key) for key in sources)

    @property
    def pickle(self) -> bool:
        """Whether loading the file can run code."""
        return is_pickle(self.filename)

    @property
    def known_bytes(self) -> int | None:
        """Exact or approximate size in bytes; None when unknown."""
        return self.size or self.size_approx


class Licence(StrictModel):
    """What the weights may be used for."""

    id: Text = Field(description="SPDX identifier or the upstream's own name.")
    note: str | None = None
    commercial: bool | None = Field(None, description="null: unverified.")
    bake: Literal["yes", "ask"] = Field(
        description="ask: gated, non-commercial or unlicensed; baked only with --accept-licence."
    )


class Needs(StrictModel):
    """The least that the model runs with, all offloading used. Nominal GB."""

    vram_gb: Gigabytes
    ram_gb: Gigabytes
    note: str | None = None


class MemoryNeed(StrictModel):
    """What one memory mode needs. Nominal GB."""

    mode: MemoryMode
    vram_gb: Gigabytes
    ram_gb: Gigabytes


class Model(StrictModel):
    """Everything podkiln knows of a model."""

    title: Text
    summary: Text
    env: EnvName | None = Field(None, description="The variable that switches it on in a pod.")
    task: Task | None = Field(
        None, description="What it makes. How much VRAM that takes beside the files was measured by task."
    )
    family: Identifier | None = Field(
        None,
        description="Models that do the same, larger and smaller; the plan names them as alternatives.",
    )
    licence: Licence
    gated: bool = Field(False, description="The hub requires an accepted licence and a token.")
    tiers: Annotated[TupleOf[Tier], AfterValidator(distinct)] = Field(min_length=1)
    needs: Needs
    memory_modes: TupleOf[MemoryNeed] = Field((), description="From the least offloading to the most.")
    requires: Annotated[TupleOf[Requirement], AfterValidator(distinct)] = Field(
        (), description="What must be there beside the files: node:, model:, …"
    )
    example_with: Annotated[TupleOf[Identifier], AfterValidator(distinct)] = Field(
        (),
        description="Models whose files its example workflow names too: a part makes no picture alone.",
    )
    files: TupleOf[ModelFile] = Field(min_length=1)
    homepage: HttpsUrl | None = None
    notes: TupleOf[str] = ()

    @field_validator("files")
    @classmethod
    def _no_duplicates(cls, files: tuple[ModelFile, ...]) -> tuple[ModelFile, ...]:
        seen: set[str] = set()
        for file in files:
            if file.destination in seen:
                raise ValueError(f"two files go to {file.destination!r}")
            seen.add(file.destination)
        if all(file.optional for file in files):
            raise ValueError("all files are optional: at least one must not be")
        return files

    @field_validator("memory_modes")
    @classmethod
    def _distinct_modes(cls, modes: tuple[MemoryNeed, ...]) -> tuple[MemoryNeed, ...]:
        distinct(tuple(each.mode for each in modes))
        for before, after in itertools.pairwise(modes):
            if after.vram_gb > before.vram_gb:
                raise ValueError(
                    f"{after.mode} needs more VRAM than {before.mode} before it: "
                    "write them from the least offloading to the most"
                )
        return modes

    @property
    def wanted(self) -> tuple[ModelFile, ...]:
        """The files that come with the model unless more is asked for."""
        return tuple(file for file in self.files if not file.optional)

    @property
    def local(self) -> bool:
        """Whether one of the files lies on the builder."""
        return any(file.local for file in self.files)

    @property
    def size_bytes(self) -> int:
        """Bytes of the wanted files, as far as they are known."""
        return sum(file.known_bytes or 0 for file in self.wanted)


def default_env(identifier: str) -> str:
    """Return the variable of a model that names none: ENABLE_ and its id."""
    return "ENABLE_" + re.sub(r"[^A-Z0-9]+", "_", identifier.upper()).strip("_")
