#!/usr/bin/env bash
# podkiln server: starts the server of the model that MODEL_ID names.
# Generated from templates/start.sh.j2 and variants/server.yaml. Do not edit.
#
# /start.sh --explain prints what would be decided, as JSON, and starts nothing.
# Environment: MODEL_ID, MODEL_REVISION, BASE_MODEL, LORAS, GPU_MEMORY_MODE, API_TOKEN, PORT, HF_TOKEN, CIVITAI_TOKEN,
# WORKSPACE, PUBLIC_KEY, and others.
# Exit codes: 69 it cannot work here or the port is taken, 78 a variable is malformed or lacking, else the server's own.
set -Eeuo pipefail

# --- Settings -------------------------------------------------------------------------------------------------------
# What was closed by whoever started this must not become another file's number.
[[ -e /dev/fd/1 ]] || exec >/dev/null
[[ -e /dev/fd/2 ]] || exec 2>/dev/null

# What the image was built with; the environment wins.
export WORKSPACE="${WORKSPACE:-/workspace}"
# RunPod's load balancer expects another one, which the server knows.
[[ -n "${RUNPOD_ENDPOINT_ID:-}" ]] || export PORT="${PORT:-8000}"
# CUDA counts cards by speed unless told otherwise; nvidia-smi, which decides here, counts them by slot.
# Empty, as compose's ${X:-} leaves it, would hide every card; -1 does that on purpose.
[[ -n "${CUDA_VISIBLE_DEVICES-x}" ]] || unset CUDA_VISIBLE_DEVICES
export CUDA_DEVICE_ORDER="${CUDA_DEVICE_ORDER:-PCI_BUS_ID}"
export PODKILN_ROOT="${PODKILN_ROOT:-/opt/podkiln}"
export PODKILN_RUN="${PODKILN_RUN:-/run/podkiln}"
readonly STOP_SECONDS=9
self=$0
[[ "$self" == /* ]] || self=$PWD/$self

# The system's Python without site-packages: it starts in 15 ms, and nothing installed beside it can break it.
pod() {
    /usr/bin/python3 -I -S "$PODKILN_ROOT" "$@"
}

# What it writes to may be gone already.
trap : PIPE
say() {
    printf 'podkiln: %s\n' "$*" >&2 || true
}

# --- Decide ---------------------------------------------------------------------------------------------------------
# Card, memory and volume are looked at in one place (podkiln/pod/), for the server. A refusal has said its sentence
# already; its exit code goes on.
if [[ "${1:-}" == --explain ]]; then
    pod decide --explain
    exit 0
fi
if (($#)); then
    say "start.sh takes no arguments but --explain; variables say what is served (MODEL_ID)."
    exit 64
fi

# On vast.ai an on-start script may run again, and people start it by hand. Whatever lives of a start holds the lock, and
# none of it asks anybody anything. A folder that cannot be written is `decide`'s to complain of.
exec </dev/null
if [[ -L "$PODKILN_RUN/lock" || (-e "$PODKILN_RUN/lock" && ! -f "$PODKILN_RUN/lock") ]]; then
    say "$PODKILN_RUN/lock is not a plain file, but the lock of a start belongs there: remove it, and start the pod again."
    exit 70
fi
if { { [[ -d "$PODKILN_RUN" ]] || mkdir -p "$PODKILN_RUN"; } && true >>"$PODKILN_RUN/lock"; } 2>/dev/null; then
    exec {lock}>>"$PODKILN_RUN/lock"
    if ! flock --nonblock "$lock"; then
        first=$(head -c 20 "$PODKILN_RUN/lock")
        if [[ "$first" =~ ^[0-9]+$ && -e /proc/$first/exe ]]; then
            say "start.sh is running in this pod already; this one ends."
            exit 0
        fi
        # That one was killed. All that it started has been told to end, and is waited for.
        if ! flock --timeout "$((STOP_SECONDS + 5))" "$lock"; then
            say "processes of an earlier start.sh do not end: kill those that fuser $PODKILN_RUN/lock names."
            exit 69
        fi
    fi
    { printf '%s\n' "$$" >"$PODKILN_RUN/lock"; } 2>/dev/null || true
fi
PODKILN_STARTS=1 pod decide || exit

# What access checks against is known to `services` alone from here on: not to the server.
export -n WEB_PASSWORD JUPYTER_PASSWORD JUPYTER_TOKEN

# --- Folders --------------------------------------------------------------------------------------------------------
# What `decide` found out about the volume: WORKSPACE may be another folder now, because the volume is elsewhere or
# cannot be written.
mapfile -d '' -t found <"$PODKILN_RUN/comfyui.env"
for setting in "${found[@]}"; do
    export "${setting?}"
done

# --- Services -------------------------------------------------------------------------------------------------------
# The supervisor starts the server at once, because that takes longest.
# From here on all that we and the services say goes through it, for the log on the volume.
cd /opt/podkiln
# The kernel tells all of them to end when this shell is killed: nothing is left that nobody looks after.
tied=()
if [[ -x /usr/bin/setpriv ]]; then
    tied=(/usr/bin/setpriv --pdeathsig TERM --)
fi
[[ ! -e "$PODKILN_RUN/ended" ]] || rm -rf -- "$PODKILN_RUN/ended"
exec 3>&2 4>&1
coproc SUPERVISOR {
    exec "${tied[@]}" /usr/bin/python3 -I -S "$PODKILN_ROOT" run "$$" "$STOP_SECONDS" \
        /opt/venv/bin/python -I "$PODKILN_ROOT" model >&4
}
# shellcheck disable=SC2154  # coproc assigns it
supervisor=$SUPERVISOR_PID
exec 2>&"${SUPERVISOR[1]}" 4>&-
hears=${SUPERVISOR[1]} says=${SUPERVISOR[0]}
exec {hears}>&- {says}<&-

# Whatever starts beside the server is noted here by its process, and ends with it. None of it may take that down, or
# slow it. What is killed is started again after each of PAUSES, and then no more (templates/start/wait.j2).
readonly PAUSES=(1 5 25) TRIES=3
declare -A services=() waiting=() deaths=()
begin() {
    # As long as this file is there, the service is begun again where it is killed: jobs wait for what it fetches.
    touch -- "$PODKILN_RUN/$1.kept" 2>/dev/null || true
    case "$1" in
        doctor) "${tied[@]}" nice -n 10 /usr/bin/python3 -I -S "$PODKILN_ROOT" doctor --boot & ;;
        *) access & ;;
    esac
    services[$!]=$1
}
begin doctor

# --- Access ---------------------------------------------------------------------------------------------------------
# sshd, where a key is given.
access() {
    export WEB_PASSWORD JUPYTER_PASSWORD JUPYTER_TOKEN
    exec "${tied[@]}" /usr/bin/python3 -I -S "$PODKILN_ROOT" services
}
begin services

# --- Until the end --------------------------------------------------------------------------------------------------
# The supervisor ends it cleanly within STOP_SECONDS, waits for the services' last words, and has the very last one.
# Where the server cannot be kept alive, it sends us SIGTERM itself.
status=0
# shellcheck disable=SC2329  # the trap below calls it, which shellcheck misses when a script ends in exit
stop() {
    trap '' TERM INT
    kill -TERM "$supervisor" "${!services[@]}" "${!waiting[@]}" 2>/dev/null || true
    exec 2>&3
    wait "$supervisor" || status=$?
    exit "$status"
}
trap stop TERM INT

# A service that ends by itself has said why. One that was killed has not, so it is said here, and begun again.
again() {
    local name=$1 number=$2 count=$((${deaths[$1]:-0}))
    if ((count >= TRIES)); then
        rm -f -- "$PODKILN_RUN/$name.kept" || true
        say "$name was killed again (signal $number), so it stays down."
        return
    fi
    say "$name was killed (signal $number); it is started again in ${PAUSES[count]} s ($((count + 1)) of $TRIES)."
    deaths[$name]=$((count + 1))
    sleep "${PAUSES[count]}" &
    waiting[$!]=$name
}
while true; do
    ended='' status=0
    wait -n -p ended "$supervisor" "${!services[@]}" "${!waiting[@]}" || status=$?
    if [[ -z "$ended" || "$ended" == "$supervisor" ]]; then
        break
    elif [[ -n "${waiting[$ended]:-}" ]]; then
        begin "${waiting[$ended]}"
        unset "waiting[$ended]"
    else
        name=${services[$ended]}
        unset "services[$ended]"
        if ((status > 128)); then
            again "$name" "$((status - 128))"
        else
            rm -f -- "$PODKILN_RUN/$name.kept" || true
        fi
    fi
done

# The supervisor never ends before us, unless it is killed; the model server ends with it.
exec 2>&3
kill -TERM "${!services[@]}" "${!waiting[@]}" 2>/dev/null || true
if ((status <= 128)) || [[ -e "$PODKILN_RUN/ended" ]]; then
    exit "$status"
fi
signal=$((status - 128))
# What the model server has started is in its process group; the kernel tells it nothing.
pod end || true
if [[ -n "${PODKILN_AGAIN:-}" ]]; then
    say "the supervisor of the model server was killed again (signal $signal), so the pod stops."
    exit "$status"
fi
say "the supervisor of the model server was killed (signal $signal), so the pod starts again, once."
wait || true
# With the environment that it was started with, and none of what was decided then.
for setting in "${found[@]}"; do
    unset "${setting%%=*}"
done
mapfile -d '' -t found </proc/$$/environ
for setting in "${found[@]}"; do
    export "${setting?}" 2>/dev/null || true
done
export PODKILN_AGAIN=1
exec {lock}>&- 3>&-
exec "$BASH" "$self"
