#!/usr/bin/env bash
# podkiln datacenter: starts ComfyUI 0.33.0 with the flags that fit this pod.
# Generated from templates/start.sh.j2 and variants/datacenter.yaml. Do not edit.
#
# /start.sh --explain prints what would be decided, as JSON, and starts nothing.
# Environment: GPU_TIER, GPU_MEMORY_MODE, COMFYUI_ARGS, COMFYUI_PORT, MODELS, LORAS, ENABLE_<MODEL>, HF_TOKEN,
# CIVITAI_TOKEN, WORKSPACE, PUBLIC_KEY, JUPYTER_PASSWORD, WEB_USER, WEB_PASSWORD, and others.
# Exit codes: 64 COMFYUI_ARGS refused, 78 another variable malformed, else ComfyUI's own.
set -Eeuo pipefail

# --- Settings -------------------------------------------------------------------------------------------------------
# What the image was built with; the environment wins.
export WORKSPACE="${WORKSPACE:-/workspace}"
export COMFYUI_PORT="${COMFYUI_PORT:-8188}"
# CUDA counts cards by speed unless told otherwise; nvidia-smi, which decides here, counts them by slot.
export CUDA_DEVICE_ORDER="${CUDA_DEVICE_ORDER:-PCI_BUS_ID}"
export PODKILN_ROOT="${PODKILN_ROOT:-/opt/podkiln}"
export PODKILN_RUN="${PODKILN_RUN:-/run/podkiln}"
readonly STOP_SECONDS=8

# The system's Python without site-packages: it starts in 15 ms, and nothing installed into ComfyUI can break it.
pod() {
    /usr/bin/python3 -I -S "$PODKILN_ROOT" "$@"
}

say() {
    printf 'podkiln: %s\n' "$*" >&2
}

# --- Decide ---------------------------------------------------------------------------------------------------------
# Detection, flags and models are decided in one place (podkiln/pod/), the same that `./build.py flags` asks. A
# refusal has said its sentence already; its exit code goes on.
if [[ "${1:-}" == --explain ]]; then
    pod decide --explain
    exit 0
fi
if (($#)); then
    say "start.sh takes no arguments but --explain; ComfyUI's own go into COMFYUI_ARGS."
    exit 64
fi

# On vast.ai an on-start script may run again, and people start it by hand. Whatever lives of a start holds the lock, and
# none of it asks anybody anything. A folder that cannot be written is `decide`'s to complain of.
exec </dev/null
if { mkdir -p "$PODKILN_RUN" && true >>"$PODKILN_RUN/lock"; } 2>/dev/null; then
    exec {lock}>"$PODKILN_RUN/lock"
    if ! flock --nonblock "$lock"; then
        say "start.sh is running in this pod already; this one ends."
        exit 0
    fi
fi
pod decide || exit

# What access checks against is known to `services` alone from here on: not to ComfyUI, nor to what pip builds.
export -n WEB_PASSWORD JUPYTER_PASSWORD JUPYTER_TOKEN

# --- Folders --------------------------------------------------------------------------------------------------------
# What `decide` found out about the volume, for ComfyUI and for all that runs beside it: WORKSPACE may be another folder
# now, because the volume is elsewhere or cannot be written.
mapfile -d '' -t found <"$PODKILN_RUN/comfyui.env"
for setting in "${found[@]}"; do
    export "${setting?}"
done

NODE_REQUIREMENTS="${NODE_REQUIREMENTS:-check}"
# Only for who asked for it: on the first start pip fetches what custom nodes lack, later ones have it on the volume.
if [[ "${NODE_REQUIREMENTS,,}" == install ]]; then
    pod nodes --install || say "some custom nodes will not load; the sentences above say why."
fi

# --- Services -------------------------------------------------------------------------------------------------------
# The keeper starts ComfyUI at once, because that takes longest; models that come later are seen without a restart.
# From here on all that we and the services say goes through it, for the log on the volume.
cd /opt/ComfyUI
exec 3>&2 2> >(exec /usr/bin/python3 -I -S "$PODKILN_ROOT" run "$$" "$STOP_SECONDS" /opt/venv/bin/python main.py)
keeper=$!

# Whatever starts beside ComfyUI is noted here and ends with it. None of it may take ComfyUI down, or slow it.
services=()
nice -n 10 /usr/bin/python3 -I -S "$PODKILN_ROOT" fetch &
services+=($!)
nice -n 10 /usr/bin/python3 -I -S "$PODKILN_ROOT" doctor --boot &
services+=($!)

# --- Access ---------------------------------------------------------------------------------------------------------
# sshd, Jupyter and the login before ComfyUI: none of them runs unless its variables are set. What they check against
# is known to this one process, and to nothing that ComfyUI starts.
WEB_PASSWORD="${WEB_PASSWORD:-}" JUPYTER_PASSWORD="${JUPYTER_PASSWORD:-}" JUPYTER_TOKEN="${JUPYTER_TOKEN:-}" \
    /usr/bin/python3 -I -S "$PODKILN_ROOT" services &
services+=($!)

# --- Until the end --------------------------------------------------------------------------------------------------
# The keeper ends ComfyUI cleanly within STOP_SECONDS, waits for the services' last words, and has the very last one.
# Where ComfyUI cannot be kept alive, it sends us SIGTERM itself.
status=0
# shellcheck disable=SC2329  # the trap below calls it, which shellcheck misses when a script ends in exit
stop() {
    trap '' TERM INT
    kill -TERM "$keeper" "${services[@]}" 2>/dev/null || true
    exec 2>&3
    wait "$keeper" || status=$?
    exit "$status"
}
trap stop TERM INT

# It never ends before that, unless it is broken.
wait "$keeper" || status=$?
kill -TERM "${services[@]}" 2>/dev/null || true
exit "$status"
