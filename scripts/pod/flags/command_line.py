"""ComfyUI's command line, put together from what says something about it."""

from __future__ import annotations

from pod.flags.arguments import exclusive, opposed
from pod.flags.rules import Rule
from pod.util.dataclass import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pod.flags.arguments import Catalogue, FlagUse, ParsedArgs
    from pod.flags.node_selection import NodeSelection
    from pod.volume.custom_nodes import Nodes
    from pod.volume.volume import Volume

_USER = "COMFYUI_ARGS"
_VOLUME = "the volume"
_NODES = "custom nodes"
# What --base-directory moves, so that it must not be said where else these are.
_MOVED = ("--output-directory", "--input-directory", "--user-directory", "--temp-directory")


class CommandLine:
    """Arguments gathered from the weakest source to the strongest; the stronger one stays."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        # A flag, whose it is, and what it makes way for.
        self._chosen: list[tuple[FlagUse, str, tuple[str, ...]]] = []
        self.reasons: list[str] = []

    def add(self, rule: Rule, source: str) -> None:
        """Add what a rule says."""
        for given in self._catalogue.parse(rule.args, source, exists=lambda _kind, _path: True).given:
            self._put(given, source, rule.unless)
        if rule.reason:
            words = " ".join(rule.args)
            self.reasons.append(
                f"{source}: {words} because {rule.reason}" if words else f"{source}: {rule.reason}"
            )

    def replace(self, rule: Rule, source: str) -> None:
        """Replace arguments by those of the same name, from any source; each of them is there."""
        new = self._catalogue.parse(rule.args, source, exists=lambda _kind, _path: True).given
        none: tuple[str, ...] = ()
        by_name = {given.flag.name: (given, source, none) for given in new}
        self._chosen = [by_name.pop(entry[0].flag.name, entry) for entry in self._chosen]
        self._chosen += by_name.values()
        self.reasons.append(f"{source}: {' '.join(rule.args)} because {rule.reason}")

    def add_folders(self, volume: Volume, nodes: NodeSelection, user: ParsedArgs) -> None:
        """Add the volume's folders and nodes, as far as a user has not said where all of them are."""
        own = {given.flag.name for given in user.given}
        skipped = _MOVED if "--base-directory" in own else ()
        words = [word for word in volume.arguments() if word.partition("=")[0] not in skipped]
        self.add(Rule(tuple(words), ""), _VOLUME)
        if "--disable-all-custom-nodes" not in own:
            self.add(Rule(nodes.arguments(volume.nodes), ""), _NODES)

    def add_user(self, user: ParsedArgs, nodes: Nodes) -> None:
        """Add what a user gives; everything else makes way for it, but for nodes that are left out."""
        for given in self._allowed(user.given, nodes):
            self._put(given, _USER)
            self.reasons.append(
                f"{_USER}: {given}" + (f", which {given.flag.note}" if given.flag.note else "")
            )

    def _allowed(self, given: Sequence[FlagUse], nodes: Nodes) -> Iterator[FlagUse]:
        """Yield what a user gives, without the nodes that are left out.

        A whitelist says what is loaded only beside --disable-all-custom-nodes; else all nodes are, and it has
        no say in ComfyUI. So it is dropped where it would narrow the list that keeps a node out.
        """
        alone = not any(one.flag.name == "--disable-all-custom-nodes" for one in given)
        out = {one.node for one in nodes.left_out}
        for one in given:
            if one.flag.name != "--whitelist-custom-nodes" or not out:
                yield one
            elif alone:
                self.reasons.append(f"{_USER}: {one} does nothing without --disable-all-custom-nodes")
            else:
                kept = tuple(name for name in one.values if name not in out)
                if dropped := [name for name in one.values if name in out]:
                    self.reasons.append(
                        f"{_USER}: {one.flag.name} names {', '.join(dropped)}, which stay left out"
                    )
                if kept:
                    yield replace(one, values=kept)

    def _put(self, new: FlagUse, source: str, unless: tuple[str, ...] = ()) -> None:
        kept = []
        for entry in self._chosen:
            old, origin, makes_way_for = entry
            again = old.flag.name == new.flag.name and not new.flag.repeat
            clash = again or exclusive(old.flag, new.flag) or opposed(old.flag, new.flag)
            if origin == source or not (clash or new.flag.name in makes_way_for):
                kept.append(entry)
            elif old.words() != new.words():
                self.reasons.append(f"{old} ({origin}) gives way to {new} ({source})")
        self._chosen = [*kept, (new, source, unless)]

    def words(self) -> tuple[str, ...]:
        """Return the arguments as ComfyUI gets them."""
        return tuple(word for given, *_ in self._chosen for word in given.words())

    def sources(self) -> list[tuple[FlagUse, str]]:
        """Return each flag and whose it is."""
        return [(given, source) for given, source, _ in self._chosen]

    def has(self, name: str) -> bool:
        """Tell whether a flag is among them."""
        return any(given.flag.name == name for given, *_ in self._chosen)

    def value(self, name: str, alone: str | None = None) -> str | None:
        """Return the first value of a flag, or `alone` where it is given without one."""
        found = (given.values for given, *_ in self._chosen if given.flag.name == name)
        return next((values[0] if values else alone for values in found), None)
