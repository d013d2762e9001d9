"""Which of the image's custom nodes ComfyUI loads: the everyday ones, and those of models that are on.

ComfyUI imports all that lies in its folders, so a node that no model needs is kept out by its own flags:
with --disable-all-custom-nodes it imports what --whitelist-custom-nodes names, by the names of folders and
files, wherever these lie (nodes.py, init_external_custom_nodes). Nodes of the user's own are always named.
"""

from __future__ import annotations

from pod.util import files
from pod.util.dataclass import dataclass, replace
from pod.util.env import SettingError, nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from pod.flags.arguments import ParsedArgs
    from pod.flags.model_selection import ModelDecision
    from pod.volume.custom_nodes import Nodes

FILE = "nodes.json"  # in the image
VARIABLE = "NODES"
ALL = "all"
DISABLE, WHITELIST, BASE = "--disable-all-custom-nodes", "--whitelist-custom-nodes", "--base-directory"
WORKSPACE = "{workspace}"  # of a value of `environment`


@dataclass(frozen=True)
class CodeOffer:
    """Code of others that a node imports from the folder that `variable` names; `folder`: in the image."""

    name: str
    commit: str
    variable: str
    folder: str | None


@dataclass(frozen=True)
class NodeOffer:
    """One node of nodes.json, as far as choosing is concerned; `included`: its files lie in the image.

    `commit`: None of a node of podkiln's own.
    """

    id: str
    folder: str
    commit: str | None
    included: bool
    models: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    code: tuple[CodeOffer, ...] = ()


@dataclass(frozen=True)
class NodeDecision:
    """What was decided about one node; `why` is a phrase, `switch` what would load it.

    `own`: ComfyUI loads one of its name from outside of the image, the user's own.
    """

    offer: NodeOffer
    loaded: bool
    why: str
    switch: str = ""
    own: bool = False

    @property
    def used(self) -> bool:
        """Whether any copy of it is loaded, which needs what it asks for."""
        return self.loaded or self.own

    @property
    def fetched(self) -> bool:
        """Whether its own files have to come from its repository."""
        return self.loaded and not self.offer.included

    @property
    def fetched_code(self) -> tuple[CodeOffer, ...]:
        """What it imports and no image holds."""
        return tuple(each for each in self.offer.code if self.used and each.folder is None)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of decision.json; `fetch` says whether code has to come from somewhere."""
        return {
            "id": self.offer.id,
            "folder": self.offer.folder,
            "commit": self.offer.commit,
            "included": self.offer.included,
            "models": list(self.offer.models),
            "loaded": self.loaded,
            "own": self.own,
            "switch": self.switch,
            "fetch": self.fetched or bool(self.fetched_code),
            "why": self.why,
        }


@dataclass(frozen=True)
class NodeSelection:
    """All nodes of the image; `by_user`: COMFYUI_ARGS say which nodes are loaded, of these and all others."""

    choices: tuple[NodeDecision, ...] = ()
    by_user: bool = False

    @property
    def out(self) -> tuple[NodeDecision, ...]:
        """The nodes that are not loaded for want of a model, each with what would load it."""
        return tuple(one for one in self.choices if not one.loaded and one.switch)

    @property
    def fetches(self) -> bool:
        """Whether code has to be fetched before ComfyUI starts."""
        return any(one.fetched or one.fetched_code for one in self.choices)

    @property
    def reasons(self) -> list[str]:
        """Say in one line which nodes are left out, and how to switch them on."""
        said = [
            f"custom node {one.offer.id} is loaded: {one.why}"
            for one in self.choices
            if one.loaded and one.offer.models
        ]
        if self.out:
            names = ", ".join(f"{one.offer.id} ({one.switch})" for one in self.out)
            said.append(
                f"custom nodes that no enabled model needs are not loaded: {names}; {VARIABLE}={ALL} loads "
                "them all"
            )
        return said

    def arguments(self, nodes: Nodes) -> tuple[str, ...]:
        """Return what keeps nodes out: these, and those of the volume that do not fit the image."""
        loaded = [one.offer.folder for one in self.choices if one.loaded]
        return nodes.arguments([one.offer.folder for one in self.out if one.offer.included], loaded)

    def environment(self, workspace: str, local: str) -> dict[str, str]:
        """Return the variables that the nodes in use ask for. `local`: a folder of the container's own."""
        found: dict[str, str] = {}
        for one in self.choices:
            if one.used:
                values = dict(one.offer.environment)
                found |= {name: text.replace(WORKSPACE, workspace) for name, text in values.items()}
                found |= {
                    each.variable: each.folder or code_folder(local, one.offer.id, each.name)
                    for each in one.offer.code
                }
        return found

    def folders(self, workspace: str) -> list[str]:
        """Return the folders on the volume that these variables name: a node need not make its own."""
        return [
            text.replace(WORKSPACE, workspace)
            for one in self.choices
            if one.used
            for _, text in one.offer.environment
            if text.startswith(f"{WORKSPACE}/")
        ]


def nodes_folder(local: str) -> str:
    """Return where fetched nodes lie: a folder of the container's, which ComfyUI looks into."""
    return f"{local}/nodes"


def code_folder(local: str, node: str, name: str) -> str:
    """Return where fetched code lies that a node imports."""
    return f"{local}/code/{node}-{name}"


def load(path: Path) -> tuple[NodeOffer, ...]:
    """Read nodes.json; nothing where there is none, as in images made by hand. Raises PodError."""
    return files.read_image_data(path, from_json) if path.exists() else ()


def from_json(data: Mapping[str, Any]) -> tuple[NodeOffer, ...]:
    """Make offers of nodes.json's data. Raises ValueError, KeyError or TypeError where it is damaged."""
    return tuple(
        NodeOffer(
            id=entry["id"],
            folder=entry["folder"],
            commit=entry["commit"],
            included=entry["included"],
            models=tuple(entry["models"]),
            environment=tuple(sorted(entry["environment"].items())),
            code=tuple(
                CodeOffer(each["name"], each["commit"], each["variable"], each["folder"])
                for each in entry["code"]
            ),
        )
        for entry in data["nodes"]
    )


def check_names(named: Sequence[str], offers: Sequence[NodeOffer]) -> None:
    """Raise SettingError where NODES names one that the image does not have."""
    ids = [offer.id for offer in offers]
    for name in named:
        if name not in (*ids, ALL):
            near = nearest(name, ids)
            hint = f"did you mean {near}?" if near else f"it has {', '.join(ids) or 'none'}."
            raise SettingError(f"{VARIABLE} names {name!r}, which is no custom node of this image: {hint}")


def select(
    offers: Sequence[NodeOffer],
    models: Sequence[ModelDecision],
    named: Collection[str],
    user: ParsedArgs,
    nodes: Nodes,
) -> NodeSelection:
    """Decide about every node of the image.

    Args:
        offers: The nodes.
        models: What was decided about the models.
        named: What NODES says.
        user: COMFYUI_ARGS, which win.
        nodes: What lies in ComfyUI's folders: a node on the volume is the user's own.
    """
    choices = tuple(
        replace(_decided(offer, models, named, user, nodes), own=_uses_own(offer, user, nodes))
        for offer in offers
    )
    # A whitelist alone does nothing in ComfyUI.
    return NodeSelection(choices, any(one.flag.name == DISABLE for one in user.given))


def _decided(
    offer: NodeOffer,
    models: Sequence[ModelDecision],
    named: Collection[str],
    user: ParsedArgs,
    nodes: Nodes,
) -> NodeDecision:
    own = nodes.has_own(offer.folder)
    if instead := _in_its_place(offer, user, nodes):
        return NodeDecision(offer, loaded=False, why=instead)
    wanted, why = _wanted(offer, models, named)
    if (wanted or offer.included) and (given := _by_user(offer, user)):
        return NodeDecision(offer, *given)
    if wanted:
        return NodeDecision(offer, loaded=True, why=why)
    if own:
        return NodeDecision(offer, loaded=True, why=f"{offer.folder} is on the volume too")
    if offer.included and not nodes.names:
        return NodeDecision(
            offer, loaded=True, why="the nodes of the volume are not known, so all are loaded"
        )
    variables = [one.offer.env for one in models if one.offer.id in offer.models]
    switch = " or ".join(f"{name}=true" for name in variables) or f"{VARIABLE}={offer.id}"
    return NodeDecision(offer, loaded=False, why=why, switch=switch)


def _in_its_place(offer: NodeOffer, user: ParsedArgs, nodes: Nodes) -> str | None:
    """Say what of the volume is used, or left out, in a node's place; None where the image's own counts."""
    names = _left_out(nodes)
    clash = f"{offer.folder} on the volume requires what the image does not have, and is left out by its name"
    if offer.included:
        return clash if offer.folder in names else None
    if not nodes.has_own(offer.folder):
        return None
    if _uses_own(offer, user, nodes):
        return f"{offer.folder} is on the volume, and is used"
    if offer.folder.lower() in (name.lower() for name in names):
        return clash
    return f"{offer.folder} is on the volume, and COMFYUI_ARGS leave it out"


def _left_out(nodes: Nodes) -> list[str]:
    return [one.node for one in nodes.left_out]


def _uses_own(offer: NodeOffer, user: ParsedArgs, nodes: Nodes) -> bool:
    """Tell whether ComfyUI loads a node of the user's own that has this one's name, in any letters."""
    given = {one.flag.name: one.values for one in user.given}
    listed = given.get(WHITELIST, ()) if DISABLE in given else nodes.own
    return any(
        name.lower() == offer.folder.lower() and name in listed and name not in _left_out(nodes)
        for name in nodes.own
    )


def _wanted(offer: NodeOffer, models: Sequence[ModelDecision], named: Collection[str]) -> tuple[bool, str]:
    """Say whether a node is wanted: an everyday one always, a model's with its model."""
    enabled = [one.offer.id for one in models if one.enabled and one.offer.id in offer.models]
    if offer.included and not offer.models:
        return True, "in the image for every start"
    if enabled:
        return True, f"{', '.join(enabled)} {'needs' if len(enabled) == 1 else 'need'} it"
    if ALL in named or offer.id in named:
        return True, f"{VARIABLE}={ALL}" if ALL in named else f"{VARIABLE} names it"
    if offer.models:
        return False, f"no model that needs it is on ({', '.join(offer.models)})"
    return False, "its code is not in the image"


def _by_user(offer: NodeOffer, user: ParsedArgs) -> tuple[bool, str] | None:
    """Return what COMFYUI_ARGS say of a node; None where they say nothing of nodes."""
    given = {one.flag.name: one.values for one in user.given}
    if DISABLE in given:
        named = offer.folder in given.get(WHITELIST, ())
        how = f"{WHITELIST} names it" if named else DISABLE
        return named, f"COMFYUI_ARGS: {how}"
    if WHITELIST in given:
        return True, f"COMFYUI_ARGS: {WHITELIST} without {DISABLE}"
    if BASE in given and offer.included:
        return False, f"COMFYUI_ARGS: {BASE}, where ComfyUI looks for nodes then"
    return None
