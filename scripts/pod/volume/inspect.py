"""Looking at the volume at the start, no longer than its limit: a Volume comes out whatever it does.

For a volume that cannot be written, or does not answer in time, a folder in the container stands in, with a
sentence about what will be lost.
"""

from __future__ import annotations

import json
import os

from pod.errors import PodError
from pod.hardware import mounts
from pod.util.dataclass import dataclass, replace
from pod.util.env import SettingError, seconds, short
from pod.volume import (
    custom_nodes,
    foreign_layouts,
    layout,
    node_requirements,
    package_overlay,
    sentences,
    write_access,
)
from pod.volume.custom_nodes import Nodes
from pod.volume.layout import VolumeLayout
from pod.volume.timed_subprocess import LateError, LostError, TimedSubprocess
from pod.volume.volume import FOLDERS, LOCAL, RUN, Volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Self

    from pod.hardware.mounts import Mount
    from pod.volume.foreign_layouts import LinkFile

ROOT = "/opt/podkiln"
COMFYUI = "/opt/ComfyUI"
LIMIT = 2.0  # seconds: a network volume answers in hundredths, and ComfyUI would hang on one that hangs
LONGEST = 60.0
SERVERLESS = "/runpod-volume"
STAND_IN = "workspace"  # in the local folder
# What the kernel shows as files: nobody can keep anything there (filesystems(5)).
_KERNELS = frozenset({"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "securityfs", "debugfs"})


@dataclass(frozen=True)
class ProbeOptions:
    """What the environment says.

    `workspace` is WORKSPACE, `default` the image's own. `serverless` is where a serverless worker has its
    volume. `local` is a folder of the container, `run` the run folder, which serves where `local` cannot be
    written. `limit` is in seconds. `root` is the image's data, as /opt/podkiln. `links` are files of further
    folders that COMFYUI_ARGS name, `base` the folder in which ComfyUI looks for nodes by them.
    """

    workspace: str
    default: str
    serverless: str = SERVERLESS
    local: str = LOCAL
    run: str = RUN
    venv: str = package_overlay.VENV
    requirements: str = custom_nodes.CHECK
    limit: float = LIMIT
    modules: tuple[str, ...] = ()
    root: str = ROOT
    links: tuple[str, ...] = ()
    base: str | None = None

    @classmethod
    def of(
        cls, environ: Mapping[str, str], workspace: str, default: str, modules: Sequence[str] = ()
    ) -> ProbeOptions:
        """Read the environment. `modules` are to be looked for beside the image's. Raises PodError."""
        return cls(
            workspace=workspace,
            default=default,
            serverless=environ.get("PODKILN_VOLUME") or SERVERLESS,
            local=environ.get("PODKILN_LOCAL") or LOCAL,
            run=environ.get("PODKILN_RUN") or RUN,
            venv=environ.get("PODKILN_VENV") or package_overlay.VENV,
            requirements=custom_nodes.asked(environ),
            limit=seconds("PODKILN_VOLUME_TIMEOUT", environ, LIMIT, LONGEST),
            modules=tuple(modules),
            root=environ.get("PODKILN_ROOT") or ROOT,
        )


class VolumeProbe:
    """A volume that is being looked at. Use it as a context manager: leaving ends the look.

    With `write` folders that are missing are made, on the volume and in the container; without it nothing is
    changed anywhere.
    """

    lost = "outputs, inputs, settings, new custom nodes and new models"
    """What is put on a volume, and ends with the container without one."""
    needed_by = "ComfyUI"

    def __init__(self, asked: ProbeOptions, mounted: Sequence[Mount] | None = None, *, write: bool) -> None:
        self._asked = asked
        self._write = write
        self._mounted = mounts.read() if mounted is None else mounted
        self._root, self._notes = self._find_root()
        self._beside = TimedSubprocess(self._look, asked.limit)

    def __enter__(self) -> Self:
        self._beside.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self._beside.__exit__(None, None, None)

    def _find_root(self) -> tuple[str, list[str]]:
        """Return where the volume is: serverless workers have it elsewhere, and set nothing."""
        asked = self._asked
        here = mounts.holding(self._mounted, asked.workspace)
        if here and here.kind in _KERNELS:
            raise SettingError(
                f"WORKSPACE={short(asked.workspace)!r} lies in {here.point}, where the kernel shows itself: "
                "name a folder, such as /workspace."
            )
        elsewhere = mounts.holding(self._mounted, asked.serverless)
        if here is None and elsewhere and asked.workspace == asked.default:
            return asked.serverless, [
                f"nothing is mounted at {asked.workspace}, so the volume at {asked.serverless} is used"
            ]
        return asked.workspace, []

    def _look(self, report: Callable[[Any], None]) -> None:
        """Be the process that touches the volume."""
        asked = self._asked
        site = package_overlay.site(asked.venv)
        known = _elsewhere(asked.root)
        found = layout.survey(self._root, write=self._write, elsewhere=known)
        report(found.to_json())
        other = asked.serverless
        second = None
        if other != self._root and os.path.isdir(other):  # noqa: PTH112
            second = layout.survey(other, write=False, elsewhere=known)
        report(second.to_json() if second else None)
        packages = package_overlay.base(found.root, site)
        now = package_overlay.active(packages)
        folders = [*found.nodes, *(second.nodes if second else ())]
        links = [*found.links, *(second.links if second else ())]
        read = [foreign_layouts.read(path, site) for path in links]
        report(
            {
                "links": [each.path for each in read if each.problem is None],
                "notes": [note for each in read for note in each.notes],
                "nodes": custom_nodes.inspect_nodes(
                    folders, site, now, asked.requirements, linked=self._linked(read, site)
                ).to_json(),
                "base": packages,
                "now": now,
                "modules": node_requirements.modules(asked.modules, now) if now else [],
            }
        )

    def _linked(self, links: Sequence[LinkFile], site: str) -> list[str]:
        """Return the folders besides that ComfyUI loads nodes from. `links` are those on the volume."""
        given, most = self._asked.base, foreign_layouts.LARGEST_GIVEN
        others = [*self._asked.links, f"{COMFYUI}/{foreign_layouts.LINKS}"]
        read = [*links, *(foreign_layouts.read(path, site, largest=most) for path in others)]
        found = [folder for each in read for folder in each.node_folders]
        return [*found, *([f"{given}/custom_nodes"] if given else [])]

    def answer(self) -> Volume:
        """Wait for the look to end, or for its limit. Raises PodError where nothing can be written."""
        local = self._local()
        try:
            found = VolumeLayout.from_json(self._beside.answer())
            if found.impossible:
                raise SettingError(
                    f"WORKSPACE={short(self._root)!r} {found.impossible}: name a folder, such as /workspace."
                )
            if found.unread:
                return self._without(local, f"it {found.unread}")
            return self._answer(local, found)
        except (LateError, LostError) as failure:
            return self._without(local, _late(failure, self._asked))

    def _answer(self, local: str, found: VolumeLayout) -> Volume:
        """Wait for the rest of the look. Raises LateError, LostError."""
        second = self._beside.answer()
        other = VolumeLayout.from_json(second) if second else None
        try:
            rest = self._beside.answer()
            seen = Nodes.from_json(rest["nodes"])
        except (LateError, LostError) as failure:
            rest = {"base": None, "now": None, "modules": [], "links": [], "notes": []}
            seen = Nodes(unread=_late(failure, self._asked), wish=self._asked.requirements)
        return self._assemble(local, found, other, seen, rest)

    def _local(self) -> str:
        return _writable([self._asked.local, self._asked.run], self.needed_by, write=self._write)

    def _assemble(
        self, local: str, found: VolumeLayout, other: VolumeLayout | None, seen: Nodes, rest: dict[str, Any]
    ) -> Volume:
        reasons = [*self._notes, *sentences.about_homes(found), *sentences.about_others(found, rest["links"])]
        problems = [f"{path} cannot be written, so nothing new can be put there" for path in found.stuck]
        if other and other.unread:
            problems.append(f"{other.root} {other.unread}, so nothing on it is used")
            other = None
        models = [*found.models]
        if other:
            models += [f"{other.root}/models", *other.models]
        chosen, folders = found, [*found.nodes, *(other.nodes if other else ())]
        if found.trouble:
            chosen = self._stand_in(local)
            problems.append(
                f"{found.root} {found.trouble}: {self.lost} go to {chosen.root} and end with this container; "
                "what is on the volume is still read"
            )
            models.insert(0, f"{found.root}/models")
            folders.insert(0, chosen.nodes[0])
        elif mounts.holding(self._mounted, found.output) is None:
            reasons.append(
                f"no volume is mounted at {found.root}, so what ComfyUI saves there ends with this container"
            )
        if found.closed or found.blocked:
            chosen, folders = self._beside_closed(local, found, chosen, folders)
        if found.closed:
            problems.append(sentences.about_closed(found, f"{local}/{STAND_IN}"))
        problems += sentences.about_blocked(found, f"{local}/{STAND_IN}")
        closed = (*found.closed, *(other.closed if other else ()))
        models = [path for path in models if path not in closed]
        problems += [*found.elsewhere, *(other.elsewhere if other else ()), *rest["notes"]]
        wanted = self._asked.requirements == custom_nodes.INSTALL and not found.trouble
        return Volume(
            root=found.root,
            workspace=chosen.root,
            output=chosen.output,
            input=chosen.input,
            user=chosen.user,
            local=local,
            run=self._asked.run,
            models=tuple(models),
            webui=(*found.webui, *(other.webui if other else ())),
            links=tuple(rest["links"]),
            node_folders=tuple(folders),
            nodes=seen,
            overlay=rest["base"] if wanted or rest["now"] else None,
            modules=tuple(rest["modules"]),
            problems=tuple(problems),
            reasons=tuple(reasons),
            warnings=(*problems, *seen.warnings()),
        )

    def _beside_closed(
        self, local: str, found: VolumeLayout, chosen: VolumeLayout, folders: list[str]
    ) -> tuple[VolumeLayout, list[str]]:
        """Put folders of the container in place of those that cannot be used, at which ComfyUI would end."""
        mine = self._stand_in(local)
        unusable = {*found.closed, *found.blocked}
        kinds = [kind for kind in ("output", "input", "user") if getattr(chosen, kind) in unusable]
        chosen = replace(chosen, **{kind: getattr(mine, kind) for kind in kinds})
        return chosen, folders or list(mine.nodes)

    def _without(self, local: str, why: str) -> Volume:
        """Do without the volume altogether: whatever touches it hangs, or fails."""
        chosen = self._stand_in(local)
        problem = (
            f"{self._root} is left alone ({why}): {self.lost} go to {chosen.root} "
            "and end with this container; start the pod again when the volume is back"
        )
        return Volume(
            root=self._root,
            workspace=chosen.root,
            output=chosen.output,
            input=chosen.input,
            user=chosen.user,
            local=local,
            run=self._asked.run,
            node_folders=chosen.nodes,
            nodes=custom_nodes.unjudged(chosen.nodes, self._asked.requirements),
            responsive=False,
            reasons=tuple(self._notes),
            problems=(problem,),
            warnings=(problem,),
        )

    def _stand_in(self, local: str) -> VolumeLayout:
        return layout.survey(f"{local}/{STAND_IN}", write=self._write)


def _elsewhere(root: str) -> dict[str, Any]:
    """Return what folders.json says of models that nobody reads; a damaged one is complained of by others."""
    try:
        with open(f"{root}/{FOLDERS}", "rb") as file:  # noqa: PTH123 - pathlib costs 10 ms that a boot waits for
            return dict(json.load(file)["elsewhere"])
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _late(failure: LateError | LostError, asked: ProbeOptions) -> str:
    """Say why a look came to nothing."""
    if isinstance(failure, LateError):
        return f"it did not answer within {asked.limit:g} s"
    return f"looking at it failed: {failure}"


def _writable(folders: Sequence[str], needed_by: str, *, write: bool) -> str:
    """Return the first folder that can be written, made if need be. Raises PodError."""
    for folder in folders:
        try:
            if write:
                os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        except OSError:
            continue
        if write_access.forbidden(folder) is None:
            return folder
    raise PodError(
        f"neither {' nor '.join(folders)} can be written, and {needed_by} needs a place for temporary files: "
        "mount a tmpfs there, or set PODKILN_LOCAL."
    )
