"""What the rendered Dockerfile makes of an image's config and history, as BuildKit writes them down.

Nothing is listed a second time here: the instructions of the stages that end in the image are read from the
Dockerfile itself. One that is not understood is a RenderError, so that none is passed over.

Source: BuildKit frontend/dockerfile/dockerfile2llb/convert.go; OCI image-spec v1.1 config.md.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from podkiln.errors import RenderError
from podkiln.render import bake_file, build_context, lint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from podkiln.plan.plan import Plan

_PAIR: Final = re.compile(r'([\w.-]+)=("(?:[^"\\]|\\.)*"|[^\s"]+)(?:\s+|$)')
_OPTION: Final = re.compile(r"--(mount|chmod|chown|link|network|security)\b")
_SHELL: Final = "/bin/sh -c "
_LAYERS: Final = ("RUN", "COPY", "ADD")
_EITHER: Final = (
    "WORKDIR"  # a layer, or none where the folder is there and the exporter leaves empty ones out
)
_NANOSECONDS: Final = {"s": 10**9, "m": 60 * 10**9}
_TIMES: Final = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}


@dataclass(frozen=True)
class Step:
    """One instruction, as the history tells of it. `text`: None where the config holds all that it says."""

    word: str
    text: str | None

    def differs(self, told: Mapping[str, Any]) -> bool:
        """Tell whether a history entry is about something else."""
        same = _words(told.get("created_by")) == _words(self.text)
        if self.text is None:
            same = _words(told.get("created_by"))[:1] == [self.word]
        empty = self.word not in _LAYERS
        return not same or (self.word != _EITHER and told.get("empty_layer", False) is not empty)

    def __str__(self) -> str:
        return self.text or f"{self.word} …"


def _words(created_by: object) -> list[str]:
    """Return what a history entry says, without the options that only some versions of BuildKit repeat."""
    return [word for word in str(created_by).split() if not _OPTION.match(word)]


@dataclass
class Rendered:
    """What the runtime of an image is: `config` as in the image's config, and the steps that made it."""

    epoch: str
    created: str
    environment: dict[str, str]
    config: dict[str, Any]
    steps: list[Step] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan) -> Rendered:
        """Read it from the plan's own Dockerfile. Raises RenderError."""
        runtime = plan.described.spec.runtime
        created = datetime.fromtimestamp(runtime.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        base = runtime.base.sets
        made = cls(str(runtime.epoch), created, dict(base.environment), {"Labels": dict(base.labels)})
        given = {"SOURCE_DATE_EPOCH": made.epoch}
        for stage in _stages(build_context.dockerfile(plan)):
            arguments: dict[str, str] = {}
            for word, rest in stage:
                if word == "ARG":
                    arguments[rest] = given.get(rest, "")
                made.apply(word, rest, arguments)
        made.config["Env"] = [f"{name}={value}" for name, value in made.environment.items()]
        made.config = {key: value for key, value in made.config.items() if value}
        return made

    def apply(self, word: str, rest: str, arguments: Mapping[str, str]) -> None:
        """Do what one instruction does."""
        if word == "RUN":
            self.steps.append(Step(word, _run(rest, arguments)))
        elif word in ("COPY", "ADD"):
            self.steps.append(Step(word, f"{word} {rest} # buildkit"))
        elif word in _SETTINGS:
            _SETTINGS[word](self, rest)
            self.steps.append(Step(word, None))
        else:
            raise RenderError(f"The Dockerfile has {word}, of which verify does not know what it makes.")


def _env(made: Rendered, rest: str) -> None:
    made.environment |= dict(_pairs(rest))


def _label(made: Rendered, rest: str) -> None:
    made.config["Labels"] |= dict(_pairs(rest))


def _expose(made: Rendered, rest: str) -> None:
    made.config["ExposedPorts"] = {f"{port}/tcp": {} for port in rest.split()}


def _workdir(made: Rendered, rest: str) -> None:
    made.config["WorkingDir"] = rest


def _entrypoint(made: Rendered, rest: str) -> None:
    made.config["Entrypoint"] = json.loads(rest)  # and the base's Cmd is dropped


def _healthcheck(made: Rendered, rest: str) -> None:
    options, _, command = rest.partition(" CMD ")
    check: dict[str, Any] = {"Test": ["CMD", *json.loads(command)]}
    for name, value in re.findall(r"--([a-z-]+)=(\S+)", options):
        if name == "retries":
            check["Retries"] = int(value)
        else:
            check[_TIMES[name]] = int(value[:-1]) * _NANOSECONDS[value[-1]]
    made.config["Healthcheck"] = check


def _arg(_made: Rendered, _rest: str) -> None:
    """An ARG shows in the commands that it is there for."""


_SETTINGS: Final[dict[str, Callable[[Rendered, str], None]]] = {
    "ARG": _arg,
    "ENV": _env,
    "LABEL": _label,
    "EXPOSE": _expose,
    "WORKDIR": _workdir,
    "ENTRYPOINT": _entrypoint,
    "HEALTHCHECK": _healthcheck,
}


def _stages(dockerfile: str) -> Iterator[list[tuple[str, str]]]:
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
        yield bodies[stage]


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
