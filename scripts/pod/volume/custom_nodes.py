"""The custom nodes of the volume: which of them ComfyUI may load, and what they lack.

ComfyUI loads all that lies in its custom_nodes folders. Where a node must be left out, it is told to load
none but the others (--disable-all-custom-nodes --whitelist-custom-nodes): nothing on the volume is renamed.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from pod.errors import SETTING_MALFORMED, PodError
from pod.util.dataclass import asdict, dataclass, field
from pod.volume import node_requirements
from pod.volume.node_requirements import NodeReport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


VARIABLE = "NODE_REQUIREMENTS"
CHECK, INSTALL, IGNORE = ANSWERS = ("check", "install", "ignore")
INSTALLED = "/opt/ComfyUI/custom_nodes"
EXAMPLES = "/opt/podkiln/custom_nodes"  # in it a node without classes: ComfyUI shows its workflows
OF_IMAGE = (INSTALLED, EXAMPLES)
USUAL = ("podkiln", "websocket_image_save.py")  # what lies in these before any node is put in
_READERS = 16  # a network volume answers many questions at once as fast as one
_SHOWN = 6


@dataclass(frozen=True)
class Nodes:
    """All nodes that ComfyUI would load, and the verdicts on those whose requirements are not met.

    `names` are the folders' and files' names that ComfyUI loads; `twice` are in the image and on the volume.
    `own` are the names of what lies outside of the image.
    `unread` says why nothing is known of them, None when they were looked at.
    """

    names: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()
    verdicts: tuple[NodeReport, ...] = ()
    unread: str | None = None
    wish: str = CHECK
    own: tuple[str, ...] = ()

    @property
    def left_out(self) -> tuple[NodeReport, ...]:
        """The nodes that are not loaded."""
        return () if self.wish == IGNORE else tuple(one for one in self.verdicts if one.conflicts)

    @property
    def loaded(self) -> tuple[NodeReport, ...]:
        """The others with a verdict."""
        out = {one.node for one in self.left_out}
        return tuple(one for one in self.verdicts if one.node not in out)

    @property
    def lacking(self) -> tuple[NodeReport, ...]:
        """The nodes that are loaded, and lack packages."""
        return tuple(one for one in self.loaded if one.missing)

    @property
    def unclear(self) -> tuple[NodeReport, ...]:
        """The nodes that are loaded, and of whose requirements something is not understood."""
        return tuple(one for one in self.loaded if one.unclear)

    def has_own(self, folder: str) -> bool:
        """Whether something of a name is outside of the image; the case of letters makes no difference."""
        return folder.lower() in (name.lower() for name in self.own)

    def arguments(self, unwanted: Sequence[str] = (), further: Sequence[str] = ()) -> tuple[str, ...]:
        """Return what keeps the wrong ones out; nothing when there is nothing to keep out.

        Args:
            unwanted: Names of the image's own that are not to be loaded.
            further: Names of nodes that will be there when ComfyUI starts.
        """
        out = {*unwanted, *(one.node for one in self.left_out)}
        if not out:
            return ()
        names = sorted({*self.names, *further})
        others = [name for name in names if name not in out and not name.startswith("-")]
        return ("--disable-all-custom-nodes", *(["--whitelist-custom-nodes", *others] if others else []))

    def warnings(self) -> list[str]:
        """Return a sentence for each node that is left out, and one about those that lack something."""
        said = [
            f"custom node {one.node} requires {_some(one.conflicts)}: it is left out, because ComfyUI needs "
            f"that version; {VARIABLE}=ignore loads it all the same"
            for one in self.left_out
        ]
        if said:
            said += [
                f"custom node {name} is not loaded while another is left out, because ComfyUI takes its name "
                "for a flag: rename its folder"
                for name in self.names
                if name.startswith("-")
            ]
        if self.wish == IGNORE:
            said += [
                f"custom node {one.node} requires {_some(one.conflicts)}; loaded, as {VARIABLE}=ignore says"
                for one in self.verdicts
                if one.conflicts
            ]
        if self.lacking and self.wish == CHECK:
            who = "; ".join(f"{one.node}: {_some(one.missing)}" for one in self.lacking[:_SHOWN])
            more = f"; and {len(self.lacking) - _SHOWN} more" if len(self.lacking) > _SHOWN else ""
            said.append(
                f"custom nodes lack packages and may not load ({who}{more}): {VARIABLE}=install puts them "
                "onto the volume at the start, as does `python3 -I -S /opt/podkiln nodes --install` now"
            )
        said += [
            f"custom node {name} is on the volume and in the image: both are loaded, and the image's wins"
            for name in self.twice
            if name not in {one.node for one in self.left_out}  # then neither is
        ]
        said += self.doubts()
        return said

    def doubts(self) -> list[str]:
        """Return sentences about what could not be found out."""
        said = []
        if self.unclear:
            who = "; ".join(f"{one.node}: {_some(one.unclear)}" for one in self.unclear[:_SHOWN])
            more = f"; and {len(self.unclear) - _SHOWN} more" if len(self.unclear) > _SHOWN else ""
            said.append(
                "of the requirements of custom nodes some are not understood, so they are neither checked "
                f"nor installed ({who}{more}): install what they need by hand"
            )
        if self.unread:
            said.append(f"the requirements of the volume's custom nodes are not checked: {self.unread}")
        return said

    def to_json(self) -> dict[str, Any]:
        """Return it for another process, and for decision.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Nodes:
        """Read what `to_json` made."""
        verdicts = tuple(
            NodeReport(row.pop("node"), **{key: tuple(wants) for key, wants in row.items()})
            for row in data["verdicts"]
        )
        names, twice, own = (tuple(data[key]) for key in ("names", "twice", "own"))
        return cls(names, twice, verdicts, data["unread"], data["wish"], own)


@dataclass
class _Reading:
    """What the readers share."""

    folders: list[Path]
    verdicts: dict[str, NodeReport] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> Path | None:
        with self.lock:
            return self.folders.pop() if self.folders else None


def asked(environ: Mapping[str, str]) -> str:
    """Return what NODE_REQUIREMENTS says. Raises PodError."""
    value = environ.get(VARIABLE, "").strip()
    if value.lower() in ("", *ANSWERS):
        return value.lower() or CHECK
    raise PodError(f"{VARIABLE}={value!r} is not one of {', '.join(ANSWERS)}.", SETTING_MALFORMED)


def inspect_nodes(  # one parameter for each place
    places: Sequence[str],
    site: str,
    overlay: str | None,
    wish: str,
    image: Sequence[str] = OF_IMAGE,
    linked: Sequence[str] = (),
) -> Nodes:
    """Read the nodes of a volume. Raises nothing: what cannot be read is said.

    Args:
        places: The volume's custom_nodes folders.
        site: ComfyUI's site-packages.
        overlay: Where packages for nodes were installed, if anywhere.
        wish: What NODE_REQUIREMENTS says.
        image: The image's custom_nodes folders.
        linked: Further folders that ComfyUI loads nodes from; only their names are of interest.
    """
    there = {place: _entries(place) for place in places}
    further = [place for place in linked if place not in image]  # a link file of the image's names EXAMPLES
    own = {name for found in (*there.values(), *map(_entries, further)) for name in found}
    in_image = [name for place in image for name in _entries(place)]
    names, own_names = tuple(sorted({*in_image, *own})), tuple(sorted(own))
    folders = [Path(place, name) for place in places for name in there[place] if not name.endswith(".py")]
    known = {name.lower() for name in in_image}
    twice = tuple(sorted(folder.name for folder in folders if folder.name.lower() in known))
    if not folders:
        return Nodes(names, wish=wish, own=own_names)
    parse = node_requirements.parser(site)
    if parse is None:
        return Nodes(names, twice, unread=f"there is no `packaging` in {site}", wish=wish, own=own_names)
    verdicts = _judge(
        folders, node_requirements.installed(site), node_requirements.installed(overlay or ""), parse
    )
    notable = tuple(one for one in verdicts if one.conflicts or one.beyond or one.unclear)
    return Nodes(names, twice, notable, wish=wish, own=own_names)


def unjudged(places: Sequence[str], wish: str, image: Sequence[str] = OF_IMAGE) -> Nodes:
    """Return the names of all that ComfyUI loads from the image and these folders, without a look at them."""
    own = {name for place in places for name in _entries(place)}
    names = own.union(*map(_entries, image))
    return Nodes(tuple(sorted(names)), wish=wish, own=tuple(sorted(own)))


def _judge(
    folders: Sequence[Path], image: Mapping[str, str], overlay: Mapping[str, str], parse: Any
) -> list[NodeReport]:
    reading = _Reading(list(folders))

    def work() -> None:
        while folder := reading.next():
            try:
                verdict = node_requirements.compare(folder, image, overlay, parse)
            except OSError as error:
                verdict = NodeReport(folder.name, unclear=(f"cannot be read ({error.strerror})",))
            except Exception as bug:  # noqa: BLE001 - one node's, whatever it is: the others are still judged
                verdict = NodeReport(folder.name, unclear=(f"cannot be judged ({type(bug).__name__})",))
            with reading.lock:
                reading.verdicts[str(folder)] = verdict

    readers = [threading.Thread(target=work, daemon=True) for _ in range(min(_READERS, len(folders)))]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return [reading.verdicts[key] for key in sorted(reading.verdicts)]


def _entries(place: str) -> list[str]:
    """Return the names in a custom_nodes folder that ComfyUI loads (nodes.py, init_external_custom_nodes)."""
    try:
        with os.scandir(place) as entries:
            found = [entry.name for entry in entries if entry.name.endswith(".py") or _is_folder(entry)]
    except OSError:
        return []
    return sorted(name for name in found if name != "__pycache__" and not name.endswith(".disabled"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into what fails
        return False


def _some(wants: Sequence[str]) -> str:
    shown = ", ".join(wants[:_SHOWN])
    return f"{shown} and {len(wants) - _SHOWN} more" if len(wants) > _SHOWN else shown
