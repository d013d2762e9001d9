"""A preset: one YAML file in variants/presets/, an example workflow with named inputs.

What a request for it says, and how it is checked, is decided by scripts/worker/presets.py.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from podkiln.config.document import StrictModel, TupleOf
from podkiln.config.fields import Identifier, Phrase, Text, distinct
from podkiln.config.messages import PatternType
from podkiln.util.quoting import shown
from worker.presets import BESIDE

InputType: TypeAlias = Literal["string", "integer", "number", "boolean", "choice", "image", "video", "audio"]
FieldName = Annotated[
    str, PatternType(r"^[a-z][a-z0-9_]{0,39}$", "a field's name of lower-case letters, digits and _")
]
NodeId = Annotated[str, PatternType(r"^[1-9][0-9]{0,5}$", 'the id of a node, quoted, such as "12"')]
Place = Annotated[
    str, PatternType(r"^[1-9][0-9]{0,5}\.[A-Za-z0-9_]+$", "NODE.INPUT of the workflow, such as 5.seed")
]
Value: TypeAlias = str | int | float | bool
MEDIA = ("image", "video", "audio")


class AddedNode(StrictModel):
    """A node that an input brings along, or inputs of one that is there, in ComfyUI's API form."""

    class_type: Text | None = Field(None, description="For a node that the workflow does not have.")
    inputs: dict[Text, Value | TupleOf[str | int]] = Field(
        {}, description='Values; and links, as ["12", 0]: the id of a node and the number of its output.'
    )


class PresetInput(StrictModel):
    """What a request may say under a name."""

    type: InputType
    at: Annotated[TupleOf[Place], AfterValidator(distinct)] = Field(
        min_length=1, description="The inputs of nodes that get the value, as NODE.INPUT."
    )
    description: Phrase | None = Field(None, description="For whoever writes requests; without a full stop.")
    required: bool = False
    default: Value | None = Field(
        None, description="By default what the workflow has at the first place. Files have none."
    )
    random: bool = Field(False, description="Drawn anew where a request does not say it, and returned.")
    min: int | float | None = None
    max: int | float | None = None
    multiple_of: Annotated[int, Field(gt=0)] | None = None
    pattern: Text | None = Field(None, description="A regular expression for the whole text.")
    min_length: Annotated[int, Field(ge=0)] = Field(0, description="Characters of a text.")
    max_length: Annotated[int, Field(gt=0)] | None = Field(None, description="100000 by default.")
    choices: Annotated[TupleOf[Text], AfterValidator(distinct)] | dict[Text, Value] | None = Field(
        None, description="For a choice: the words, or a mapping of words to the workflow's values."
    )
    instead_of: TupleOf[FieldName] = Field((), description="Inputs that this one takes the place of.")
    nodes: Annotated[TupleOf[Identifier], AfterValidator(distinct)] = Field(
        (), description="Custom nodes that this input needs beside those of the workflow."
    )
    models: Annotated[TupleOf[Identifier], AfterValidator(distinct)] = Field(
        (), description="Models that this input needs beside those of the workflow."
    )
    adds: dict[NodeId, AddedNode] = Field(
        {}, description="What it puts into the workflow where a request says it."
    )
    removes: TupleOf[NodeId] = Field((), description="Nodes that it takes out then.")

    @model_validator(mode="after")
    def _fits_its_type(self) -> PresetInput:
        for key, kinds in _BELONGS.items():
            said = getattr(self, key) not in (None, False, 0)
            if said and self.type not in kinds:
                raise ValueError(f"{key} belongs to {' and '.join(kinds)}, and this is of type {self.type}")
        if self.type == "choice" and not self.choices:
            raise ValueError("a choice needs the key choices")
        if self.type in MEDIA and not (self.required or self.adds):
            raise ValueError(
                f"{_an(self.type)} is required, or `adds` says what it changes where it is given"
            )
        if self.required and self.default is not None:
            raise ValueError("what is required has no default")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        _compiled(self.pattern)
        return self


# Which types a key means something for.
_BELONGS = {
    "default": ("string", "integer", "number", "boolean", "choice"),
    "random": ("integer",),
    "min": ("integer", "number"),
    "max": ("integer", "number"),
    "multiple_of": ("integer",),
    "pattern": ("string",),
    "min_length": ("string",),
    "max_length": ("string",),
    "choices": ("choice",),
}


class Preset(StrictModel):
    """A workflow with named inputs."""

    title: Text
    summary: Text
    workflow: Identifier = Field(
        description="The model whose example workflow it fills; its models and custom nodes are needed too."
    )
    models: Annotated[TupleOf[Identifier], AfterValidator(distinct)] = Field(
        (), description="Models that it needs beside the workflow's."
    )
    inputs: dict[FieldName, PresetInput] = Field(min_length=1)
    unused: dict[FieldName, Phrase] = Field(
        {}, description="Fields of other workers' requests that are taken and say nothing here, and why."
    )

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Preset:
        for name in (*self.inputs, *self.unused):
            if name in BESIDE:
                raise ValueError(f"{shown(name)} is a field of every request, so no input is called so")
            if name in self.inputs and name in self.unused:
                raise ValueError(f"{shown(name)} is an input, so it is not unused")
        for name, each in self.inputs.items():
            for other in each.instead_of:
                if other not in self.inputs or other == name:
                    raise ValueError(f"{name} takes the place of {shown(other)}, which is no other input")
        return self


def _compiled(pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except re.error as wrong:
        raise ValueError(f"pattern is no regular expression ({wrong})") from None


def _an(kind: str) -> str:
    return f"an input of type {kind}"
