"""Which variables are secret, and which processes get them: the list for start.sh and all that it starts.

start.sh keeps ACCESS from all but `services` (templates/start/decide.j2), and the supervisor keeps JOBS from
ComfyUI where an image takes jobs. Tokens of the model hubs go to ComfyUI and to shells, since nodes and
people fetch with them, but not to what builds foreign packages.
"""

from __future__ import annotations

from pod.util.serving import ENDPOINT, way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# What one service checks logins against; no other process needs it.
ACCESS = ("WEB_PASSWORD", "JUPYTER_PASSWORD", "JUPYTER_TOKEN")
# What takes jobs shows to the platform, to a bucket and to Comfy.org, and checks its clients against. There
# ComfyUI gets none of them: its nodes run what strangers send, and a job brings the key that it needs.
JOBS = (
    "RUNPOD_AI_API_KEY",
    "RUNPOD_API_KEY",
    "BUCKET_ACCESS_KEY_ID",
    "BUCKET_SECRET_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "COMFY_ORG_API_KEY",
    "API_TOKEN",
)
# What fetching shows to the model hubs.
HUBS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "CIVITAI_TOKEN")
# Addresses in these may hold logins and tokens.
ADDRESSES = ("MODELS", "LORAS")

# In names of variables, and as parts of them between underscores. No pattern: `re` would delay each boot.
_SIGNS = ("TOKEN", "PASSW", "PASSPHRASE", "SECRET", "CREDENTIAL", "APIKEY")
_PARTS = frozenset({"KEY", "PAT", "AUTH", "PWD"})
_SHORTEST = 6  # characters: what is shorter stands in sentences by chance
_MASK = "…"


def without_access(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for most of the pod: without what the services check against."""
    return {name: value for name, value in environ.items() if name not in ACCESS}


def of_comfyui(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for ComfyUI: where jobs come, without what their worker alone needs, too."""
    kept = without_access(environ)
    return {name: value for name, value in kept.items() if name not in JOBS} if way(environ) else kept


def of_server(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for the server of a model, which fetches, takes jobs and checks its clients.

    RunPod's keys are those of a pod's account, but for a worker of an endpoint, which shows them there.
    """
    platform = () if environ.get(ENDPOINT) else ("RUNPOD_AI_API_KEY", "RUNPOD_API_KEY")
    dropped = ("COMFY_ORG_API_KEY", *platform)
    return {name: value for name, value in without_access(environ).items() if name not in dropped}


def without_any(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for code of strangers: without anything that is secret by its name."""
    return {name: value for name, value in environ.items() if not is_secret(name) and name not in ADDRESSES}


def is_secret(name: str) -> bool:
    """Tell whether a variable is secret: one of ours, or one that is called a token, key or password."""
    upper = name.upper()
    if upper in ("PWD", "OLDPWD"):
        return False
    return any(sign in upper for sign in _SIGNS) or not _PARTS.isdisjoint(upper.split("_"))


def hidden(text: str, environ: Mapping[str, str], others: Collection[str] = ()) -> str:
    """Return a text without the values of the secret variables in it: the last look at what is printed.

    `others` are secrets that no variable holds.
    """
    for name, value in environ.items():
        if len(value) >= _SHORTEST and name != "PUBLIC_KEY" and value in text and is_secret(name):
            text = text.replace(value, _MASK)
    for value in others:
        if len(value) >= _SHORTEST:
            text = text.replace(value, _MASK)
    return text
