"""Which arguments ComfyUI gets, and why: pure, so that `./build.py flags` shows what a pod will do."""

from __future__ import annotations

from pod.flags import gpu_class as cards
from pod.flags import model_selection
from pod.flags.arguments import check_modules, exclusive, opposed
from pod.flags.rules import AUTO, Rule
from pod.hardware import compatibility
from pod.services.config import Access, check_cors, inner_port
from pod.util.dataclass import dataclass, replace
from pod.util.finding import WARNING
from pod.volume.volume import usual

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from pod.flags.arguments import FlagUse, ParsedArgs
    from pod.flags.gpu_class import GpuClass
    from pod.flags.model_selection import ModelOffer, Selection
    from pod.flags.rules import Rules
    from pod.flags.settings import Settings
    from pod.hardware.gpu import Detection
    from pod.hardware.memory import Memory
    from pod.util.finding import Finding
    from pod.volume.custom_nodes import Nodes
    from pod.volume.volume import Volume

SCHEMA = 2  # of decision.json; docs/reference/json.md lists what changed
_USER = "COMFYUI_ARGS"
_COMMON = "every start"
_LOGIN = "WEB_USER"
_DOOR = "the door"
_VOLUME = "the volume"
_NODES = "custom nodes"
# What --base-directory moves, so that it must not be said where else these are.
_MOVED = ("--output-directory", "--input-directory", "--user-directory", "--temp-directory")


@dataclass(frozen=True)
class Decision:
    """What ComfyUI is started with; reasons and warnings are sentences.

    People come to the door before ComfyUI: `port` is its port, and `listen` its addresses as `--listen` takes
    them.
    """

    args: tuple[str, ...]
    port: int
    listen: tuple[str, ...]
    access: Access
    memory_mode: str | None
    profile: str
    card: GpuClass
    detection: Detection
    memory: Memory
    selection: Selection
    volume: Volume
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]

    def with_findings(self, more: Sequence[Finding]) -> Decision:
        """Return it with further findings; what is not fatal is warned about."""
        said = tuple(_sentence(finding.message) for finding in more if finding.level == WARNING)
        return replace(self, findings=(*self.findings, *more), warnings=(*self.warnings, *said))

    def with_args(self, args: tuple[str, ...]) -> Decision:
        """Return it with other arguments for ComfyUI."""
        return replace(self, args=args)

    def to_json(self) -> dict[str, Any]:
        """Return decision.json."""
        return {
            "schema": SCHEMA,
            "gpu": _gpu_json(self.detection),
            "ram_mib": self.memory.total_mib,
            "ram": {"host_mib": self.memory.host_mib, "limit_mib": self.memory.limit_mib},
            "tier": self.card.tier,
            "vram_mib": self.card.vram_mib,
            "class_gb": self.card.gb,
            "profile": self.profile,
            "memory_mode": self.memory_mode,
            "port": self.port,
            "listen": list(self.listen),
            "access": self.access.to_json(),
            "args": list(self.args),
            "reasons": list(self.reasons),
            "warnings": list(self.warnings),
            "findings": [finding.to_json() for finding in self.findings],
            "volume": self.volume.to_json(),
            "models": [choice.to_json() for choice in self.selection.choices],
            "requested_files": [wish.to_json() for wish in self.selection.wishes],
        }


def _gpu_json(detection: Detection) -> dict[str, Any] | None:
    gpu = detection.gpu
    if gpu is None:
        return None
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "name": gpu.name,
        "vram_mib": gpu.vram_mib,
        "visible": detection.visible,
        "slice": gpu.card is not None,
        "driver": gpu.driver,
        "compute_cap": gpu.compute_cap,
    }


def choose(
    rules: Rules,
    settings: Settings,
    user: ParsedArgs,
    detection: Detection,
    memory: Memory,
    offers: Sequence[ModelOffer] = (),
    root: str = "/opt/podkiln",
    *,
    access: Access = Access(),  # noqa: B008 - frozen
    volume: Volume | None = None,
    has_module: Callable[[str], bool] = lambda _name: True,
) -> Decision:
    """Choose the arguments.

    Raises SettingError where MODELS names a model that is not offered or two services have one port, and
    PodError for arguments that do not go with a login, or need a Python package that is not there.

    Args:
        rules: What flags.json says.
        settings: What the environment says.
        user: COMFYUI_ARGS, parsed: stronger than all else.
        detection: The GPU found.
        memory: The RAM found.
        offers: The models of the image.
        root: What {root} in the common arguments stands for.
        access: The ways into the pod.
        volume: Where ComfyUI's folders lie; None for a fresh volume that can be written.
        has_module: Tells whether ComfyUI could import a Python module.
    """
    volume = volume or usual(settings.workspace)
    card = cards.classify(detection, memory, settings, rules)
    wanted = model_selection.select(offers, settings, card, memory.total_mib, rules)
    mode, mode_note = _memory_mode(rules, settings, card, wanted)

    line = _CommandLine(rules)
    line.add(Rule(rules.common_for(settings.port, root), ""), _COMMON)
    line.add_folders(volume, user)
    line.add(*_profile_rule(rules, settings, card))
    if ram := next((rule for rule in rules.ram if _holds(rule.below_gb, rule.limited, memory, rules)), None):
        line.add(ram.rule, f"{memory.total_mib} MiB of RAM")
    if settings.memory_mode != AUTO and card.usable:
        line.add(_mode_rule(rules, settings), f"GPU_MEMORY_MODE={settings.memory_mode}")
    line.add_user(user, volume.nodes)
    check_modules(line.sources(), has_module)
    port = int(line.value("--port") or settings.port)
    access.check_ports(port)

    warnings = [
        *settings.warnings,
        *volume.warnings,
        *access.warnings,
        *user.notes,
        *card.warnings,
        *wanted.warnings,
    ]
    listen = tuple(
        each.strip() for each in (line.value("--listen") or "0.0.0.0,::").split(",")
    )  # alone it means both
    alone = all(each.startswith("127.") or each in ("::1", "localhost") for each in listen)
    if access.exposed and not access.login and not alone:
        warnings.append(
            f"ComfyUI on port {port} is open to everybody, for {access.exposed}: "
            "set WEB_USER and WEB_PASSWORD to have it ask for a login"
        )
    check_cors(line.value("--enable-cors-header", "*"), access.login)
    line.replace(_behind_the_door(access, port, alone=alone), _LOGIN if access.login else _DOOR)
    if not card.usable and not line.has("--cpu"):
        warnings.append("there is no GPU, and COMFYUI_ARGS removes --cpu: ComfyUI will probably end at once")
    if not card.usable and settings.memory_mode != AUTO:
        warnings.append(f"GPU_MEMORY_MODE={settings.memory_mode} has no effect without a GPU")
    findings: list[Finding] = []
    if not _does_without(rules, user, card, detection):
        findings = compatibility.examine(detection, rules.driver, rules.architectures)
    reasons = [*card.reasons, *_ram(memory), *volume.reasons, *line.reasons, *mode_note]
    reasons += wanted.reasons
    return Decision(
        args=tuple(word for given in line.given() for word in given.words()),
        port=port,
        listen=listen,
        access=access,
        memory_mode=mode,
        profile=settings.profile,
        card=card,
        detection=detection,
        memory=memory,
        selection=wanted,
        volume=volume,
        findings=(),
        reasons=tuple(_sentence(text) for text in reasons),
        warnings=tuple(_sentence(text) for text in warnings),
    ).with_findings(findings)


class _CommandLine:
    """Arguments gathered from the weakest source to the strongest; the stronger one stays."""

    def __init__(self, rules: Rules) -> None:
        self._catalogue = rules.catalogue
        # A flag, whose it is, and what it makes way for.
        self._chosen: list[tuple[FlagUse, str, tuple[str, ...]]] = []
        self.reasons: list[str] = []

    def add(self, rule: Rule, source: str) -> None:
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

    def add_folders(self, volume: Volume, user: ParsedArgs) -> None:
        """Add the volume's folders and nodes, as far as a user has not said where all of them are."""
        own = {given.flag.name for given in user.given}
        skipped = _MOVED if "--base-directory" in own else ()
        words = [word for word in volume.arguments() if word.partition("=")[0] not in skipped]
        self.add(Rule(tuple(words), ""), _VOLUME)
        if "--disable-all-custom-nodes" not in own:
            self.add(Rule(volume.nodes.arguments(), ""), _NODES)

    def add_user(self, user: ParsedArgs, nodes: Nodes) -> None:
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

    def given(self) -> list[FlagUse]:
        return [given for given, *_ in self._chosen]

    def sources(self) -> list[tuple[FlagUse, str]]:
        """Return each flag and whose it is."""
        return [(given, source) for given, source, _ in self._chosen]

    def has(self, name: str) -> bool:
        return any(given.flag.name == name for given in self.given())

    def value(self, name: str, alone: str | None = None) -> str | None:
        """Return the first value of a flag, or `alone` where it is given without one."""
        found = (given.values for given in self.given() if given.flag.name == name)
        return next((values[0] if values else alone for values in found), None)


def _profile_rule(rules: Rules, settings: Settings, card: GpuClass) -> tuple[Rule, str]:
    profile = rules.profiles[settings.profile]
    if card.gb is None:
        return profile.no_gpu, f"profile {settings.profile}, no GPU"
    if card.unified:
        return profile.unified, f"profile {settings.profile}, unified memory"
    return profile.classes[card.gb], f"profile {settings.profile}, {card.gb} GB"


def _mode_rule(rules: Rules, settings: Settings) -> Rule:
    mode = next(known for known in rules.memory_modes if known.mode == settings.memory_mode)
    return mode.rules[settings.profile]


def _does_without(rules: Rules, user: ParsedArgs, card: GpuClass, detection: Detection) -> bool:
    """Whether the user says that the GPU is not to be used, or that one is there that cannot be asked."""
    asked = "--cpu" in rules.common or any(given.flag.name == "--cpu" for given in user.given)
    return asked or (card.usable and detection.gpu is None)


def _behind_the_door(access: Access, port: int, *, alone: bool) -> Rule:
    """Return what puts ComfyUI behind the door, which listens in its place.

    ComfyUI-Manager takes a numeric loopback address for a sign that its owner alone can reach it, and then
    installs what it is asked to; without a login that is not so, and it is given the name of that address.
    """
    args = (f"--listen={'127.0.0.1' if alone or access.login else 'localhost'}", f"--port={inner_port(port)}")
    if access.login:
        return Rule(args, f"only the login may be reached from outside; it listens on port {port}")
    return Rule(args, f"nginx listens on port {port} and refuses what pages of other origins ask for")


def _holds(below_gb: int, limited: bool, memory: Memory, rules: Rules) -> bool:
    if memory.total_mib is None or (limited and not memory.limited):
        return False
    return not rules.reaches(memory.total_mib, below_gb)


def _memory_mode(
    rules: Rules, settings: Settings, card: GpuClass, wanted: Selection
) -> tuple[str | None, list[str]]:
    """Return the image-wide memory mode: what is asked for, or what the most demanding model needs."""
    if card.gb is None:
        return None, []
    if settings.memory_mode != AUTO:
        return settings.memory_mode, []
    if mode := wanted.memory_mode(rules):
        names = ", ".join(one.offer.id for one in wanted.choices if one.enabled and one.memory_mode == mode)
        return mode, [f"memory mode {mode}: the least offloading in which {names} fits"]
    class_ = rules.class_gb(card.gb)
    return class_.memory_mode, [f"memory mode {class_.memory_mode}: the usual one for the {card.gb} GB class"]


def _ram(memory: Memory) -> list[str]:
    if memory.total_mib is None:
        return ["the pod's RAM is not known, so no flag is chosen by it"]
    if memory.limited:
        return [
            f"the pod may use {memory.limit_mib} MiB of RAM, of the machine's {memory.host_mib or 'unknown'}"
        ]
    return [f"the pod may use all {memory.host_mib} MiB of the machine's RAM"]


def _sentence(text: str) -> str:
    whole = text if text.endswith((".", "?")) else f"{text}."
    return whole[0].upper() + whole[1:] if whole.split()[0].isalpha() else whole
