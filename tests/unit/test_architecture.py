"""The rules that no linter knows: who may import whom, and how long a module may get."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# The way of a variant, stage by stage: a package imports only what stands before it.
_ORDER = """
errors
util
options
oci
canonical_layers
config
registry
lock
plan
render
weights
build
verify
pipeline
cli
__main__
"""
ORDER = _ORDER.split()

# The same for what runs in a pod: from what knows nothing of it to the commands that start.sh calls.
_POD_ORDER = """
errors
container_env
util
hardware
net
source_trees
model_refs
resolve
comfyui_http
model_server_http
services
volume
flags
checks
downloads
server_decision
decision
supervisor
commands
"""
POD_ORDER = _POD_ORDER.split()
# The same for the worker: from a request's words to the platform's SDK.
_WORKER_ORDER = """
errors
messages
bucket
media
preset_inputs
fetching
presets
request
outputs
answer
progress
validation
web
s3_address
s3
results
cleaning
inputs
job
job_file
termination
warm_up
handler
fitness
runpod_sdk
children
command
serve_settings
job_record
job_queue
readiness
http_errors
http_body
http_access
openapi
event_stream
http_api
http_server
serve_command
"""
WORKER_ORDER = _WORKER_ORDER.split()
# The same within the server of one model: from facts to the decision.
_DETECTION_ORDER = """
facts
knowledge
decision
memory
weight_files
base
civitai
other_files
pipeline_folder
lora
single_file
part
detect
"""
DETECTION_ORDER = _DETECTION_ORDER.split()
# The same for its packages: from facts of a model to what answers requests for it.
_SERVER_ORDER = """
errors
detection
collection
schema
generation
settings
weights
loading
page
requests
jobs
api
command
"""
SERVER_ORDER = _SERVER_ORDER.split()
# What the builder shares with the pod: rules that must be one rule, and HTTP.
SHARED = {"errors", "util", "hardware", "net", "resolve", "source_trees", "flags"}

# What runs inside images stands on its own; the builder may use it, never the other way round. What talks to
# ComfyUI runs where ComfyUI runs, and uses what ComfyUI has. The worker's SDK is imported as it starts.
IMAGE_PACKAGES = {
    "pod": set[str](),
    "comfy": {"pod", "aiohttp"},
    "worker": {"comfy", "pod", "aiohttp", "yarl"},  # aiohttp's addresses
    # What makes pictures is imported once a model is loaded; the rest is tested without it.
    "server": {"worker", "pod", "aiohttp", "PIL", "av", "diffusers", "numpy", "torch", "transformers"},
}
LONGEST = 400

# Imports every module of the command where only what requirements.txt has can be imported.
COMMAND_ALONE = """
import importlib.metadata, pathlib, re, sys
root = pathlib.Path(sys.argv[1])
text = (root / "requirements.txt").read_text()
normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()
locked = {normal(name) for name in re.findall(r"^([\\w.-]+)==", text, re.MULTILINE)}
tops = importlib.metadata.packages_distributions()
others = {name for name, of in tops.items() if not locked & set(map(normal, of))} - {"podkiln"}

class Absent:
    def find_spec(self, name, *_):
        if name in others:
            raise ModuleNotFoundError(f"{name} is not in requirements.txt", name=name)

sys.meta_path.insert(0, Absent())
print(len(locked), len(others))
for path in sorted((root / "podkiln").rglob("*.py")):
    parts = path.relative_to(root).with_suffix("").parts
    if parts[-1] != "__main__":
        importlib.import_module(".".join(parts).removesuffix(".__init__"))
"""


def modules(package: Path) -> dict[str, Path]:
    """Return the modules below a package, by dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


PODKILN = modules(ROOT / "podkiln")
IN_IMAGES = {
    name: path for package in IMAGE_PACKAGES for name, path in modules(ROOT / "scripts" / package).items()
}


class _WithoutTypes(ast.NodeTransformer):
    """Drops what only type checkers read."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        name = node.test.id if isinstance(node.test, ast.Name) else ""
        return None if name == "TYPE_CHECKING" else self.generic_visit(node)


def imports(path: Path, known: dict[str, Path], *, types: bool = True) -> set[str]:
    """Return the modules that a file names in import statements, wherever in it these stand."""
    found: set[str] = set()
    tree: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree if types else _WithoutTypes().visit(tree)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
    return found


def member(name: str) -> str:
    """Return the module of `ORDER` that a dotted name belongs to."""
    return name.split(".")[1] if "." in name else ""


def out_of_order(known: dict[str, Path], order: list[str]) -> list[str]:
    """Return the imports between packages that go against an order, and packages that have no place in it."""
    head = next(iter(known)).partition(".")[0]
    found = {f"{own} has no place in the order" for own in map(member, known) if own and own not in order}
    for name, path in known.items():
        own = member(name)
        for used in imports(path, known):
            other = member(used) if used.startswith(f"{head}.") else ""
            if own in order and other and other != own and order.index(other) > order.index(own):
                found.add(f"{name} imports {used}")
    return sorted(found)


def test_a_script_of_the_tests_that_runs_in_an_image_hides_no_package_there() -> None:
    """Python looks into the script's own folder first."""
    names = {path.stem for path in (ROOT / "tests" / "tiny_models").glob("*.py")}
    assert {"check", "make"} <= names
    assert not names & IMAGE_PACKAGES.keys()


def test_a_package_imports_only_what_stands_before_it() -> None:
    assert out_of_order(PODKILN, ORDER) == []
    assert {member(name) for name in PODKILN} - {""} == set(ORDER), "a place in the order that nobody has"


def test_so_it_is_in_a_pod() -> None:
    pod = {name: path for name, path in IN_IMAGES.items() if name.split(".")[0] == "pod"}
    assert out_of_order(pod, POD_ORDER) == []
    assert {member(name) for name in pod} - {""} == set(POD_ORDER), "a place in the order that nobody has"


def test_so_it_is_in_a_worker() -> None:
    worker = {name: path for name, path in IN_IMAGES.items() if name.split(".")[0] == "worker"}
    assert out_of_order(worker, WORKER_ORDER) == []
    assert {member(name) for name in worker} - {""} == set(WORKER_ORDER), (
        "a place in the order that nobody has"
    )


def test_so_it_is_in_a_server() -> None:
    server = {name: path for name, path in IN_IMAGES.items() if name.split(".")[0] == "server"}
    assert out_of_order(server, SERVER_ORDER) == []
    assert {member(name) for name in server} - {""} == set(SERVER_ORDER), (
        "a place in the order that nobody has"
    )


def test_so_it_is_in_detection() -> None:
    found = {name: path for name, path in IN_IMAGES.items() if name.startswith("server.detection")}
    later = {
        f"{name} imports {used}"
        for name, path in found.items()
        for used in imports(path, found) & found.keys() - {name}
        if DETECTION_ORDER.index(used.split(".")[2]) > DETECTION_ORDER.index(name.split(".")[2])
    }
    assert sorted(later) == []
    assert {name.split(".")[2] for name in found if name.count(".") == 2} == set(DETECTION_ORDER)


def test_the_builder_uses_what_is_shared_and_nothing_else_of_a_pod() -> None:
    used = {
        f"{name} imports {each}"
        for name, path in PODKILN.items()
        for each in imports(path, IN_IMAGES)
        if each.startswith("pod.") and member(each) not in SHARED
    }
    assert sorted(used) == []


def circles(known: dict[str, Path]) -> list[str]:
    """Return the modules that import each other. Types may refer back."""
    left = {name: imports(path, known, types=False) & known.keys() - {name} for name, path in known.items()}
    while left:
        free = {name for name, used in left.items() if not used & left.keys()}
        if not free:
            return sorted(left)
        left = {name: used for name, used in left.items() if name not in free}
    return []


@pytest.mark.parametrize("known", [PODKILN, IN_IMAGES], ids=["podkiln", "pod"])
def test_nothing_goes_round_in_circles(known: dict[str, Path]) -> None:
    assert circles(known) == []


def test_what_runs_in_images_knows_only_what_is_there() -> None:
    strangers = {}
    for name, path in IN_IMAGES.items():
        package = name.partition(".")[0]
        used = {each.split(".")[0] for each in imports(path, IN_IMAGES)}
        strangers[name] = sorted(used - sys.stdlib_module_names - IMAGE_PACKAGES[package] - {package})
    assert {name: used for name, used in strangers.items() if used} == {}


def test_a_module_is_read_in_one_sitting() -> None:
    lines = {
        name: len(path.read_text(encoding="utf-8").splitlines())
        for name, path in (PODKILN | IN_IMAGES).items()
    }
    assert {name: count for name, count in lines.items() if count >= LONGEST} == {}, "look for a seam"


def test_the_command_needs_what_its_requirements_have_and_no_more() -> None:
    """What tests and images have besides is not there where somebody uses it."""
    own = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"}
    argv = [sys.executable, "-c", COMMAND_ALONE, str(ROOT)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=own)
    assert done.returncode == 0, done.stderr
    locked, others = map(int, done.stdout.split())
    assert min(locked, others) > 20, "nothing is kept away"


def test_the_entry_point_needs_nothing_installed() -> None:
    """build.py makes the environment that everything else needs."""
    entry = ROOT / "build.py"
    tree = ast.parse(entry.read_text(encoding="utf-8"))
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in at_once if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in at_once if isinstance(node, ast.ImportFrom)}
    assert sorted({name.split(".")[0] for name in names} - sys.stdlib_module_names) == []
