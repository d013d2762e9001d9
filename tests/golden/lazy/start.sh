#!/usr/bin/env bash
# podkiln lazy: starts ComfyUI 0.33.0 with the flags that fit this pod.
# Generated from templates/start.sh.j2 and variants/lazy.yaml. Do not edit.
#
# /start.sh --explain prints what would be decided, as JSON, and starts nothing.
# Environment: GPU_TIER, GPU_MEMORY_MODE, COMFYUI_ARGS, COMFYUI_PORT, MODELS, ENABLE_<MODEL>, HF_TOKEN, CIVITAI_TOKEN,
# WORKSPACE. Exit codes: 64 COMFYUI_ARGS refused, 78 another variable malformed, else ComfyUI's own.
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

mkdir -p "$PODKILN_RUN"
# Seconds since the machine started: bash has no monotonic clock of its own, and this needs no process.
read -r started _ </proc/uptime
pod decide || exit
mapfile -d '' -t comfyui_args <"$PODKILN_RUN/comfyui.args"

# --- Folders --------------------------------------------------------------------------------------------------------
# ComfyUI accepts model folders that are not there, so a volume that cannot be written only costs the fetching.
if ! mkdir -p "$WORKSPACE/models" 2>/dev/null; then
    say "$WORKSPACE cannot be written: models in the image and on the volume work, new ones cannot be fetched."
fi

# --- Services -------------------------------------------------------------------------------------------------------
# ComfyUI first: it takes longest, and sees models that come later without a restart.
cd /opt/ComfyUI
read -r spawned _ </proc/uptime
# A shell starts background processes deaf to SIGINT, which is the one signal that ComfyUI ends cleanly on.
env --default-signal=INT,QUIT /opt/venv/bin/python main.py "${comfyui_args[@]}" &
comfyui=$!

# Neither of these may take ComfyUI down, or slow it.
nice -n 10 /usr/bin/python3 -I -S "$PODKILN_ROOT" fetch &
fetch=$!
nice -n 10 /usr/bin/python3 -I -S "$PODKILN_ROOT" timeline "$started" "$spawned" &
timeline=$!

# --- Until the end --------------------------------------------------------------------------------------------------
# SIGINT is ComfyUI's clean stop; on SIGTERM it would drop what it is doing. The fetcher keeps what it has, resumable.
stopping=
# shellcheck disable=SC2329  # the trap below calls it, which shellcheck misses when a script ends in exit
stop() {
    stopping=yes
    trap '' TERM INT
    say "stopping"
    kill -INT "$comfyui" 2>/dev/null || true
    kill -TERM "$fetch" "$timeline" 2>/dev/null || true
    # Whoever sent the signal kills us after a while; better that we know who did not end.
    (
        sleep "$STOP_SECONDS"
        kill -KILL "$comfyui" "$fetch" 2>/dev/null
    ) &
}
trap stop TERM INT

# `wait` returns early when a signal arrives, so it is asked again until ComfyUI is really gone.
status=0
while kill -0 "$comfyui" 2>/dev/null; do
    wait "$comfyui" && status=0 || status=$?
done

if [[ -n "$stopping" ]]; then
    exit 0
fi
kill -TERM "$fetch" "$timeline" 2>/dev/null || true
say "ComfyUI ended by itself with exit code $status; its last lines above say why."
exit "$status"
