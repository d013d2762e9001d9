"""ComfyUI's address, and whether it answers: for the health check, the supervisor and the clients."""

from __future__ import annotations

import http.client
import os

PATH = "/system_stats"
# Docker gives the check 5 s in all.
TIMEOUT = 4.0
_DOOR_TIMEOUT = 0.5  # nginx answers by itself


def arguments() -> list[str]:
    """Return ComfyUI's arguments, as `decide` wrote them for start.sh."""
    run = os.environ.get("PODKILN_RUN", "/run/podkiln")
    try:
        with open(f"{run}/comfyui.args", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 - pathlib costs 10 ms here
            return file.read().split("\0")
    except OSError:
        return []


def value(flag: str, given: list[str]) -> str | None:
    """Return what an argument was given, the last time it was: `--flag VALUE` or `--flag=VALUE`."""
    found = None
    for number, argument in enumerate(given):
        if argument.startswith(f"{flag}="):
            found = argument.removeprefix(f"{flag}=")
        elif argument == flag:
            following = given[number + 1 : number + 2]
            found = following[0] if following and not following[0].startswith("--") else None
    return found


def port(given: list[str]) -> int:
    """Return the port that ComfyUI was told to listen on; what a user passed in COMFYUI_ARGS wins."""
    return int(value("--port", given) or os.environ.get("COMFYUI_PORT") or "8188")


def host(given: list[str]) -> str:
    """Return an address that ComfyUI listens on: the first it was told, loopback where that means all."""
    first = (value("--listen", given) or "0.0.0.0").split(",")[0].strip()  # noqa: S104 - compared, not bound
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(first, first)  # noqa: S104


def address(given: list[str]) -> str:
    """Return the address of this pod's ComfyUI itself, behind the door."""
    scheme, name = "https" if value("--tls-certfile", given) else "http", host(given)
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port(given)}"


def connect(given: list[str], timeout: float) -> http.client.HTTPConnection:
    """Open a connection to ComfyUI. With TLS its certificate is for other names, so it is not checked."""
    if value("--tls-certfile", given):
        import ssl  # noqa: PLC0415 - costs 20 ms, and few use it

        context = ssl._create_unverified_context()  # noqa: SLF001, S323 - to ourselves, on this machine
        return http.client.HTTPSConnection(host(given), port(given), timeout=timeout, context=context)
    return http.client.HTTPConnection(host(given), port(given), timeout=timeout)


def problem(timeout: float = TIMEOUT) -> str | None:
    """Ask ComfyUI once. Returns None when it serves, else one sentence."""
    given = arguments()
    connection: http.client.HTTPConnection | None = None
    try:
        connection = connect(given, timeout)
        connection.request("GET", PATH)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:  # the last where --listen names no host
        from pod.util.printable import shown  # noqa: PLC0415 - a healthy pod does without it

        return f"ComfyUI does not answer on port {port(given)}: {shown(error) or type(error).__name__}."
    finally:
        if connection:
            connection.close()
    return None if status == http.HTTPStatus.OK else f"ComfyUI answers {status} to {PATH}."


def worker_problem() -> str | None:
    """Say whether what takes jobs is missing. Returns None where it runs, or there is to be none."""
    import json  # noqa: PLC0415 - as below

    from pod.util import child_processes  # noqa: PLC0415 - the same

    run = os.environ.get("PODKILN_RUN", "/run/podkiln")
    try:
        with open(f"{run}/boot.json", encoding="utf-8") as file:  # noqa: PTH123 - as above
            wanted = "worker" in json.load(file)
    except (OSError, ValueError, TypeError):
        return None
    if not wanted or child_processes.group(run, "worker") is not None:
        return None
    return "The worker, which takes jobs for ComfyUI, does not run."


def door_problem(timeout: float = _DOOR_TIMEOUT) -> str | None:
    """Ask the door before ComfyUI whether it is there. Returns None when it is, else one sentence.

    What it answers does not matter: OPTIONS /ping is refused by nginx itself, so nothing else can be slow.
    """
    import json  # noqa: PLC0415 - costs 5 ms, which clients do not need

    run = os.environ.get("PODKILN_RUN", "/run/podkiln")
    try:
        with open(f"{run}/decision.json", encoding="utf-8") as file:  # noqa: PTH123 - as above
            decision = json.load(file)
        outer, addresses = int(decision["port"]), [str(each) for each in decision["listen"]]
    except (OSError, ValueError, LookupError, TypeError):
        return None  # nothing was decided, so there is no door
    if not addresses:
        return None  # this pod takes jobs, and has no door
    given, why = arguments(), "it has no address"
    for address in addresses:
        connection = connect([*given, f"--listen={address}", f"--port={outer}"], timeout)
        try:
            connection.request("OPTIONS", "/ping")
            connection.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as error:
            from pod.util.printable import shown  # noqa: PLC0415 - a healthy pod does without it

            why = shown(error) or type(error).__name__
        else:
            return None
        finally:
            connection.close()
    return f"the door before ComfyUI does not answer on port {outer}: {why}."
