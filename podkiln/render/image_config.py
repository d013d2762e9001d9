"""An image's config, history included, as the rendered Dockerfile gives it, whatever BuildKit writes.

`verify` compares with the same. Nothing is listed a second time here: the instructions of the stages that end
in the image are read from the Dockerfile itself. One that is not understood is a RenderError, so that none is
passed over.

Source: BuildKit frontend/dockerfile/dockerfile2llb/convert.go; OCI image-spec v1.1 config.md.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from podkiln.config.additions import LAYER
from podkiln.errors import IntegrityError, RenderError
from podkiln.render import bake_file, build_context, lint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from podkiln.oci import spec
    from podkiln.plan.plan import Plan

_PAIR: Final = re.compile(r'([\w.-]+)=("(?:[^"\\]|\\.)*"|[^\s"]+)(?:\s+|$)')
_OPTION: Final = re.compile(r"--(mount|chmod|chown|link|network|security)\b")
_SHELL: Final = "/bin/sh -c "
_LAYERS: Final = ("RUN", "COPY", "ADD")
_EITHER: Final = (
    "WORKDIR"  # a layer, or none where the folder is there and the exporter leaves empty ones out
)
NODE: Final = "node-"
"""How the requirements files of custom nodes begin."""
NODE_FOLDERS: Final = "/opt/ComfyUI/custom_nodes"
STAGE_OF_SYSTEM: Final = "system"
"""The stage of the Dockerfile that installs system packages."""
STAGE_OF_IMPORTS: Final = "nodes-imported"
IMPORTED: Final = "imported"
"""The stage that imports the custom nodes, and the file that it leaves, for which the image waits."""
_OF_A_BASE: Final = ("User", "Volumes", "StopSignal", "Shell")  # what no instruction of podkiln sets
_TITLE: Final = 30  # characters
_NANOSECONDS: Final = {"s": 10**9, "m": 60 * 10**9}
_TIMES: Final = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}


@dataclass(frozen=True)
class Instruction:
    """One instruction, and `text`, what the history tells of it."""

    word: str
    text: str

    @property
    def empty_layer(self) -> bool:
        """Whether it makes no layer."""
        return self.word not in (*_LAYERS, _EITHER)

    def differs(self, told: Mapping[str, Any]) -> bool:
        """Tell whether a history entry is about something else."""
        words, wanted = _words(told.get("created_by")), _words(self.text)
        if self.word in _SETTINGS:  # the config holds all that it says; BuildKit tells of it in its own way
            words, wanted = words[:1], wanted[:1]
        return words != wanted or (
            self.word != _EITHER and told.get("empty_layer", False) is not self.empty_layer
        )


def title(created_by: str) -> str:
    """Return what a layer is, in a word or two for a line of progress, by its history entry."""
    of_python = re.search(r"/requirements/([\w.-]+)\.txt", created_by)
    if of_python:
        return _title_of_packages(of_python[1])
    if "add-packages.sh" in created_by:
        return "added Debian packages"
    if "install-packages.sh" in created_by:
        return "system packages"
    tree = re.search(r"install-(?:tree|node)\.sh \S+ (\S+)", created_by)
    if tree:
        return _cut(tree[1].removeprefix(f"{NODE_FOLDERS}/"))
    words = [word for word in _words(created_by) if not word.startswith(("|", "SOURCE_DATE_EPOCH", "#"))]
    text = " ".join(words).removeprefix("RUN ").removeprefix(_SHELL).removesuffix(" buildkit")
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _TITLE else f"{text[:_TITLE]}…"


def _title_of_packages(layer: str) -> str:
    if layer == LAYER:
        return "added Python packages"
    return f"packages of {layer.removeprefix(NODE)}" if layer.startswith(NODE) else f"Python: {layer}"


def _words(created_by: object) -> list[str]:
    """Return what a history entry says, without the options that only some versions of BuildKit repeat."""
    return [word for word in str(created_by).split() if not _OPTION.match(word)]


@dataclass
class RenderedConfig:
    """What the runtime of an image is: `config` as in the image's config, and the steps that made it."""

    epoch: str
    created: str
    environment: dict[str, str]
    config: dict[str, Any]
    steps: list[Instruction] = field(default_factory=list)
    stages: dict[str, int] = field(default_factory=dict)
    """How many of the steps are done at the end of each stage, from the base to the image."""

    @classmethod
    def of(cls, plan: Plan) -> RenderedConfig:
        """Read it from the plan's own Dockerfile. Raises RenderError."""
        runtime = plan.described.spec.runtime
        created = datetime.fromtimestamp(runtime.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        base = runtime.base.sets
        made = cls(str(runtime.epoch), created, dict(base.environment), {"Labels": dict(base.labels)})
        given = {"SOURCE_DATE_EPOCH": made.epoch}
        for name, stage in _stages(build_context.dockerfile(plan)):
            arguments: dict[str, str] = {}
            for word, rest in stage:
                if word == "ARG":
                    arguments[rest] = given.get(rest, "")
                made.apply(word, rest, arguments)
            made.stages[name] = len(made.steps)
        made.config["Env"] = [f"{name}={value}" for name, value in made.environment.items()]
        made.config = {key: value for key, value in made.config.items() if value}
        return made

    @property
    def stage_below(self) -> str:
        """The stage that the image's own stands on."""
        return list(self.stages)[-2]

    @property
    def steps_below(self) -> int:
        """How many of the steps are done at the end of that stage."""
        return self.stages[self.stage_below]

    @property
    def layers_above(self) -> int:
        """How many layers the image's own stage makes; the folder of a WORKDIR is there already."""
        own = self.steps[self.steps_below :]
        return sum(not step.empty_layer and step.word != _EITHER for step in own)

    def document(self, exported: spec.ImageConfig) -> dict[str, Any]:
        """Return the config of an image that BuildKit has exported, but for its `rootfs`.

        Of the exported one it takes the platform, which folders a WORKDIR found there, and what the base
        tells of itself: its history, and where another base than the lock's was taken, its settings.
        Raises IntegrityError where that is not what the Dockerfile makes.
        """
        rows = exported.history
        base, own = rows[: -len(self.steps)], rows[-len(self.steps) :]
        if len(own) < len(self.steps) or any(map(Instruction.differs, self.steps, own)):
            raise IntegrityError(
                "BuildKit exported an image whose history is not that of its Dockerfile.",
                hint="Build again with --no-cache; if that does not help, with another builder (--builder).",
            )
        return {
            "architecture": exported.platform.architecture,
            "os": exported.platform.os,
            "created": self.created,
            "config": self._settings(exported.document.get("config") or {}),
            "history": [
                *({**row, "created": self.created} for row in base),
                *map(self._row, self.steps, own),
            ],
        }

    def _row(self, step: Instruction, told: Mapping[str, Any]) -> dict[str, Any]:
        row = {"created": self.created, "created_by": step.text}
        empty = told.get("empty_layer", False) if step.word == _EITHER else step.empty_layer
        return {**row, "empty_layer": True} if empty else row

    def _settings(self, exported: Mapping[str, Any]) -> dict[str, Any]:
        """Return how the image runs: what the base of the build sets, and above it what is rendered."""
        made = {key: exported[key] for key in _OF_A_BASE if exported.get(key)} | self.config
        made["Labels"] = {**(exported.get("Labels") or {}), **self.config["Labels"]}
        others = [
            each for each in exported.get("Env") or () if each.partition("=")[0] not in self.environment
        ]
        made["Env"] = [*others, *self.config["Env"]]
        return made

    def apply(self, word: str, rest: str, arguments: Mapping[str, str]) -> None:
        """Do what one instruction does."""
        if word == "RUN":
            self.steps.append(Instruction(word, _run(rest, arguments)))
        elif word in ("COPY", "ADD"):
            self.steps.append(Instruction(word, f"{word} {rest} # buildkit"))
        elif word in _SETTINGS:
            _SETTINGS[word](self, rest)
            self.steps.append(Instruction(word, f"{word} {rest}"))
        else:
            raise RenderError(f"The Dockerfile has {word}, of which podkiln does not know what it makes.")


def _env(made: RenderedConfig, rest: str) -> None:
    made.environment |= dict(_pairs(rest))


def _label(made: RenderedConfig, rest: str) -> None:
    made.config["Labels"] |= dict(_pairs(rest))


def _expose(made: RenderedConfig, rest: str) -> None:
    made.config["ExposedPorts"] = {f"{port}/tcp": {} for port in rest.split()}


def _workdir(made: RenderedConfig, rest: str) -> None:
    made.config["WorkingDir"] = rest


def _entrypoint(made: RenderedConfig, rest: str) -> None:
    made.config["Entrypoint"] = json.loads(rest)  # and the base's Cmd is dropped


def _healthcheck(made: RenderedConfig, rest: str) -> None:
    options, _, command = rest.partition(" CMD ")
    check: dict[str, Any] = {"Test": ["CMD", *json.loads(command)]}
    for name, value in re.findall(r"--([a-z-]+)=(\S+)", options):
        if name == "retries":
            check["Retries"] = int(value)
        else:
            check[_TIMES[name]] = int(value[:-1]) * _NANOSECONDS[value[-1]]
    made.config["Healthcheck"] = check


def _arg(_made: RenderedConfig, _rest: str) -> None:
    """An ARG shows in the commands that it is there for."""


_SETTINGS: Final[dict[str, Callable[[RenderedConfig, str], None]]] = {
    "ARG": _arg,
    "ENV": _env,
    "LABEL": _label,
    "EXPOSE": _expose,
    "WORKDIR": _workdir,
    "ENTRYPOINT": _entrypoint,
    "HEALTHCHECK": _healthcheck,
}


def _stages(dockerfile: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the instructions of each stage from the base to the image, without the base's own."""
    parents: dict[str, str] = {}
    bodies: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for _, word, rest in lint.instructions(dockerfile):
        if word == "FROM":
            parent, _, name = rest.split()
            parents[name], bodies[name] = parent, []
        elif name:
            bodies[name].append((word, rest))
    chain = [bake_file.TARGET]
    while parents[chain[-1]] in parents:
        chain.append(parents[chain[-1]])
    for stage in reversed(chain):
        yield stage, bodies[stage]


def _run(rest: str, arguments: Mapping[str, str]) -> str:
    command = " ".join(word for word in rest.split() if not word.startswith("--mount="))
    given = "".join(f"{name}={value} " for name, value in arguments.items())
    prefix = f"|{len(arguments)} {given}" if arguments else ""
    return f"RUN {prefix}{_SHELL}{command} # buildkit"


def _pairs(rest: str) -> Iterator[tuple[str, str]]:
    """Yield the pairs of an ENV or LABEL, their quotes taken off (render's filter `quoted` puts them on)."""
    at = 0
    while at < len(rest):
        found = _PAIR.match(rest, at)
        if not found:
            raise RenderError(f"The Dockerfile has {rest[at : at + 60]!r}, which is not name=value.")
        name, value = found[1], found[2]
        yield name, re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        at = found.end()
