"""Kinds of models and CivitAI's terms, as described in variants/flags: model-types.yaml and civitai.yaml."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from podkiln.config import document
from podkiln.config.document import StrictModel, TupleOf
from podkiln.config.fields import Identifier, Version
from podkiln.config.variant import SHIPPED

Effect: TypeAlias = Literal["refuse", "token", "login", "warn"]


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as wrong:
        raise ValueError(f"{value!r} is not a pattern: {wrong}") from None
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Type(StrictModel):
    """A kind of model."""

    id: Name
    what: str
    folder: Identifier | None
    node: str | None = None
    beside: Identifier | None = None
    civitai: TupleOf[str] = ()
    air: TupleOf[str] = ()
    taken_for: TupleOf[Name] = ()
    vague: bool = False


class Rule(StrictModel):
    """How a kind is told by the names of tensors: all conditions that stand here must hold."""

    type: Name
    only: TupleOf[str] = ()
    most: TupleOf[Pattern] = ()
    any: TupleOf[Pattern] = ()
    with_: TupleOf[Pattern] = Field((), alias="with")
    without: TupleOf[Pattern] = ()
    metadata: TupleOf[Pattern] = ()
    prefix: bool = False
    from_: str = Field(alias="from")

    @model_validator(mode="after")
    def _decides(self) -> Rule:
        if not (self.only or self.most or self.any):
            raise ValueError("needs one of only, most and any: nothing else decides")
        return self


class ModelTypes(StrictModel):
    """model-types.yaml."""

    comfyui: Version
    sources: dict[str, str]
    prefix: Pattern
    beside: Pattern
    types: TupleOf[Type]
    no_models: TupleOf[str]
    rules: TupleOf[Rule]

    @model_validator(mode="after")
    def _known(self) -> ModelTypes:
        known = {each.id for each in self.types}
        named = {rule.type for rule in self.rules} | {name for each in self.types for name in each.taken_for}
        if unknown := sorted(named - known):
            raise ValueError(f"{', '.join(unknown)} is not one of the types")
        return self


class Term(StrictModel):
    """A signal of CivitAI's, and what it means."""

    field: str
    values: TupleOf[str] = ()
    other_than: TupleOf[str] = ()
    future: bool = False
    unless_past: str | None = None
    effect: Effect
    says: str

    @model_validator(mode="after")
    def _one_condition(self) -> Term:
        if sum(map(bool, (self.values, self.other_than, self.future))) != 1:
            raise ValueError("needs exactly one of values, other_than and future")
        self.says.format(page="", value="")
        return self


class Civitai(StrictModel):
    """civitai.yaml."""

    sources: dict[str, str]
    version: TupleOf[Term]
    file: TupleOf[Term]
    models: TupleOf[str]
    no_models: TupleOf[str]


@cache
def types() -> ModelTypes:
    """Load the kinds of models. Raises DescriptionError."""
    return document.load(SHIPPED / "flags" / "model-types.yaml").parse(ModelTypes)


@cache
def civitai() -> Civitai:
    """Load what CivitAI's signals mean. Raises DescriptionError."""
    return document.load(SHIPPED / "flags" / "civitai.yaml").parse(Civitai)


def to_json() -> dict[str, Any]:
    """Return model-types.json, as pod.resolve.model_facts reads it."""
    found = types().model_dump(mode="json", by_alias=True)
    for rule in found["rules"]:
        del rule["from"]
    kept = {key: found[key] for key in ("comfyui", "prefix", "beside", "types", "no_models", "rules")}
    terms = civitai().model_dump(mode="json", exclude={"sources"})
    return {"schema": 1, **kept, "civitai": terms}
