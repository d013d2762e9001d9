"""Which arguments ComfyUI gets, and why: pure, so that `./build.py flags` shows what a pod will do."""

from __future__ import annotations

from pod.flags import gpu_class, model_selection, node_selection, working_set
from pod.flags.arguments import check_modules
from pod.flags.command_line import CommandLine
from pod.flags.decision import Decision, as_sentence
from pod.flags.rules import AUTO, Rule
from pod.hardware import compatibility
from pod.services.config import Access, check_cors, inner_port
from pod.util.dataclass import dataclass, replace
from pod.volume.volume import usual

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pod.flags.arguments import ParsedArgs
    from pod.flags.gpu_class import GpuClass
    from pod.flags.model_selection import ModelOffer, Selection
    from pod.flags.node_selection import NodeOffer, NodeSelection
    from pod.flags.rules import Rules
    from pod.flags.settings import Settings
    from pod.hardware.gpu import Detection
    from pod.hardware.memory import Memory
    from pod.volume.volume import Volume

_COMMON = "every start"
_LOGIN = "WEB_USER"
_DOOR = "the door"
_JOBS = "jobs"
_NO_PAID_NODES = "--disable-api-nodes"
_WITH_KEY = (
    "they may bring a key for the nodes of paid services, so these are loaded; "
    f"COMFYUI_ARGS={_NO_PAID_NODES} leaves them out"
)


@dataclass(frozen=True)
class Facts:
    """What the pod is.

    `volume` says where ComfyUI's folders lie, None for a fresh volume that can be written. `root` is what
    {root} in the common arguments stands for; `has_module` tells whether ComfyUI could import a module.
    """

    detection: Detection
    memory: Memory
    access: Access = Access()
    volume: Volume | None = None
    root: str = "/opt/podkiln"
    has_module: Callable[[str], bool] = lambda _name: True


@dataclass(frozen=True)
class Asked:
    """What is asked of it: the environment, COMFYUI_ARGS (stronger than all else); what the image offers."""

    settings: Settings
    user: ParsedArgs
    offers: Sequence[ModelOffer] = ()
    nodes: Sequence[NodeOffer] = ()


def choose(rules: Rules, facts: Facts, asked: Asked) -> Decision:
    """Choose the arguments by what flags.json says.

    Raises SettingError where MODELS names a model that is not offered or two services have one port, and
    PodError for arguments that do not go with a login, or need a Python package that is not there.
    """
    settings, access = asked.settings, facts.access
    volume = facts.volume or usual(settings.workspace)
    card = gpu_class.classify(facts.detection, facts.memory, settings, rules)
    selection = model_selection.select(asked.offers, settings, card, facts.memory.total_mib, rules)
    mode, why_mode = _memory_mode(rules, settings, card, selection)
    nodes = node_selection.select(asked.nodes, selection.choices, settings.nodes, asked.user, volume.nodes)
    line = _command_line(rules, facts, asked, card, selection, volume, nodes)
    port = int(line.value("--port") or settings.port)
    access.check_ports(port)
    check_cors(line.value("--enable-cors-header", "*"), access.login)
    decision = Decision(
        args=(),
        port=port,
        listen=_addresses(line.value("--listen")) if access.door else (),
        access=access,
        memory_mode=mode,
        profile=settings.profile,
        card=card,
        detection=facts.detection,
        memory=facts.memory,
        selection=selection,
        volume=volume,
        nodes=nodes,
    )
    line.replace(_behind_the_door(access, port, alone=decision.local), _LOGIN if access.login else _DOOR)
    decision = replace(
        decision,
        args=line.words(),
        reasons=tuple(map(as_sentence, _reasons(rules, decision, line, why_mode))),
        warnings=tuple(map(as_sentence, _warnings(decision, line, asked))),
    )
    if _does_without(rules, asked.user, decision):
        return decision
    return decision.with_findings(compatibility.examine(facts.detection, rules.cuda))


def _command_line(
    rules: Rules,
    facts: Facts,
    asked: Asked,
    card: GpuClass,
    selection: Selection,
    volume: Volume,
    nodes: NodeSelection,
) -> CommandLine:
    """Put the arguments together, the weakest source first. Raises PodError for a module that is lacking."""
    settings, memory = asked.settings, facts.memory
    line = CommandLine(rules.catalogue)
    common = rules.common_for(settings.port, facts.root)
    if facts.access.serve and _NO_PAID_NODES in common:
        common = tuple(word for word in common if word != _NO_PAID_NODES)
        line.add(Rule((), _WITH_KEY), _JOBS)
    line.add(Rule(common, ""), _COMMON)
    line.add_folders(volume, nodes, asked.user)
    modes = [_mode_rule(rules, settings)] if settings.memory_mode != AUTO and card.usable else []
    line.add(*_profile_rule(rules, asked, card, selection, [word for mode in modes for word in mode.args]))
    if ram := next((rule for rule in rules.ram if _holds(rule.below_gb, rule.limited, memory, rules)), None):
        line.add(ram.rule, f"{memory.total_mib} MiB of RAM")
    for mode in modes:
        line.add(mode, f"GPU_MEMORY_MODE={settings.memory_mode}")
    line.add_user(asked.user, volume.nodes)
    check_modules(line.sources(), facts.has_module)
    return line


def _addresses(listen: str | None) -> tuple[str, ...]:
    """Return the addresses that a value of --listen means; without one it means all."""
    return tuple(each.strip() for each in (listen or "0.0.0.0,::").split(","))


def _limits(rules: Rules) -> list[str]:
    """Say what does not work with the image's CUDA as it does with others."""
    return [f"CUDA {rules.cuda.version}: {each}" for each in rules.cuda.limits] if rules.cuda else []


def _reasons(rules: Rules, decision: Decision, line: CommandLine, why_mode: Sequence[str]) -> list[str]:
    """Say why, in the order in which one thing follows from another."""
    return [
        *decision.card.reasons,
        *(_limits(rules) if decision.card.usable else ()),
        *_ram(decision.memory),
        *decision.volume.reasons,
        *line.reasons,
        *why_mode,
        *decision.selection.reasons,
        *decision.nodes.reasons,
    ]


def _warnings(decision: Decision, line: CommandLine, asked: Asked) -> Iterator[str]:
    """Yield what a user should know: of each part, then of how they go together."""
    access, card, mode = decision.access, decision.card, asked.settings.memory_mode
    yield from (*asked.settings.warnings, *decision.volume.warnings, *access.warnings, *asked.user.notes)
    yield from (*card.warnings, *decision.selection.warnings)
    if access.exposed and not access.login and not decision.local:
        yield (
            f"ComfyUI on port {decision.port} is open to everybody, for {access.exposed}: "
            "set WEB_USER and WEB_PASSWORD to have it ask for a login"
        )
    if not card.usable and not line.has("--cpu"):
        yield "there is no GPU, and COMFYUI_ARGS removes --cpu: ComfyUI will probably end at once"
    if not card.usable and mode != AUTO:
        yield f"GPU_MEMORY_MODE={mode} has no effect without a GPU"


def _profile_rule(
    rules: Rules, asked: Asked, card: GpuClass, selection: Selection, mode: Sequence[str]
) -> tuple[Rule, str]:
    """Return the profile's rule and its name; `mode` are the arguments of the memory mode."""
    settings = asked.settings
    profile = rules.profiles[settings.profile]
    if card.gb is None:
        return profile.no_gpu, f"profile {settings.profile}, no GPU"
    if card.unified:
        return profile.unified, f"profile {settings.profile}, unified memory"
    words = (*mode, *(given.flag.name for given in asked.user.given))
    reserved = float(asked.user.value(working_set.RESERVE) or 0)
    rule = working_set.rule_for(rules, profile, card, selection, words, reserved)
    return rule, f"profile {settings.profile}, {card.gb} GB"


def _mode_rule(rules: Rules, settings: Settings) -> Rule:
    mode = next(known for known in rules.memory_modes if known.mode == settings.memory_mode)
    return mode.rules[settings.profile]


def _does_without(rules: Rules, user: ParsedArgs, decision: Decision) -> bool:
    """Whether the user says that the GPU is not to be used, or that one is there that cannot be asked."""
    asked = "--cpu" in rules.common or any(given.flag.name == "--cpu" for given in user.given)
    return asked or (decision.card.usable and decision.detection.gpu is None)


def _behind_the_door(access: Access, port: int, *, alone: bool) -> Rule:
    """Return what puts ComfyUI behind the door, which listens in its place.

    ComfyUI-Manager takes a numeric loopback address for a sign that its owner alone can reach it, and then
    installs what it is asked to; without a login that is not so, and it is given the name of that address.
    """
    args = (f"--listen={'127.0.0.1' if alone or access.login else 'localhost'}", f"--port={inner_port(port)}")
    if not access.door:
        return Rule(args, "it takes jobs from inside the pod alone; WEB_USER and WEB_PASSWORD open its page")
    if access.login:
        return Rule(args, f"only the login may be reached from outside; it listens on port {port}")
    return Rule(args, f"nginx listens on port {port} and refuses what pages of other origins ask for")


def _holds(below_gb: int, limited: bool, memory: Memory, rules: Rules) -> bool:
    if memory.total_mib is None or (limited and not memory.limited):
        return False
    return not rules.reaches(memory.total_mib, below_gb)


def _memory_mode(
    rules: Rules, settings: Settings, card: GpuClass, selection: Selection
) -> tuple[str | None, list[str]]:
    """Return the image-wide memory mode: what is asked for, or what the most demanding model needs."""
    if card.gb is None:
        return None, []
    if settings.memory_mode != AUTO:
        return settings.memory_mode, []
    if mode := selection.memory_mode(rules):
        of = [one for one in selection.choices if one.enabled and one.memory_mode == mode]
        names = ", ".join(one.offer.id for one in of if one.fits)
        too_large = ", ".join(one.offer.id for one in of if not one.fits)
        why = [f"the least offloading in which {names} fits"] if names else []
        why += [f"{too_large} fits in none, and this one offloads most"] if too_large else []
        return mode, [f"memory mode {mode}: {'; '.join(why)}"]
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
