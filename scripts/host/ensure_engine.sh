#!/usr/bin/env bash
# Make sure that a Docker Engine answers which can build podkiln's images, and say nothing if one does.
#
#   scripts/host/ensure_engine.sh [--with-tests]
#
#   --with-tests                also install what the tests call: docker-registry, skopeo, mmdebstrap, zstd,
#                               openssl, ssh, docker compose, a C compiler, Chromium
#   PODKILN_NO_ENGINE_SETUP=1   install and start nothing; a missing engine is then an error
#
# An engine that answers is used as it is and never reconfigured: it is somebody's. Only where none answers, on Debian
# or Ubuntu and as root, one is installed from the distribution's own packages and started.
#
# Exit codes: 0 an engine answers and can build, 2 wrong usage, 8 none does; one sentence on stderr says what to do.
set -Eeuo pipefail

readonly LOG=/var/log/podkiln-dockerd.log
readonly APT_LOG=/var/log/podkiln-apt.log
readonly LOCK=/run/podkiln-engine.lock
readonly DAEMON_JSON=/etc/docker/daemon.json
readonly POLICY=/usr/sbin/policy-rc.d
readonly CONTAINERD_STORE='{"features":{"containerd-snapshotter":true}}'

# The oldest versions that podkiln is used with. They only choose between packages; an engine that answers is judged
# by what it does (distributions rebuild Docker and report other versions, or none).
readonly ENGINE_SINCE=26 BUILDX_SINCE=0.13
# The Debian release that has them, for releases before it.
readonly NEWER=trixie

fail() {
    printf 'ensure_engine: %s\n' "$1" >&2
    exit 8
}

# Nothing may end this script without a sentence.
trap 'fail "it stopped at line $LINENO, which should not happen: run it with bash -x and report what it says."' ERR

# What this run made and must not leave behind.
scratch='' made_policy=''
tidy() {
    [[ -z $scratch ]] || rm -rf -- "$scratch"
    [[ -z $made_policy ]] || rm -f -- "$POLICY"
}
trap tidy EXIT

note() { printf 'ensure_engine: %s\n' "$1" >&2; }

# --- Looking ----------------------------------------------------------------------------------------------------------

# `docker info` is no question: several versions of the CLI exit with 0 when nothing answers it.
engine_answers() { timeout 30 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

has_chromium() { command -v chromium || command -v google-chrome || command -v chromium-browser; } >/dev/null

has_buildx() { timeout 30 docker buildx version >/dev/null 2>&1; }

# Where the docker CLI looks: DOCKER_HOST, else the current context.
endpoint() {
    docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null ||
        printf '%s\n' "${DOCKER_HOST:-unix:///var/run/docker.sock}"
}

# Export a tiny image as real builds are exported: into a folder, its layer as a plain tar. Prints BuildKit's words.
can_export() {
    local dir=$1 plain='tar=false,compression=uncompressed,force-compression=true,oci-mediatypes=true'
    printf 'FROM scratch\nCOPY probe /probe\n' >"$dir/Dockerfile"
    printf 'probe\n' >"$dir/probe"
    timeout 120 docker buildx build --quiet --no-cache --provenance=false \
        --output "type=oci,dest=$dir/made,$plain" "$dir" 2>&1 || return 1
    grep -qF '"application/vnd.oci.image.layer.v1.tar"' "$dir"/made/blobs/sha256/* ||
        { printf 'ERROR: the layer is not a plain tar\n' && return 1; }
}

require_capable() {
    local said storage
    scratch=$(mktemp -d)
    if said=$(can_export "$scratch"); then return 0; fi
    storage=$(timeout 30 docker info --format '{{json .DriverStatus}}' 2>/dev/null)
    if [[ $said == *"docker driver"* && $storage != *io.containerd.snapshotter* ]]; then
        fail "the engine at $(endpoint) cannot export OCI layouts without the containerd image store: put \
$CONTAINERD_STORE into its $DAEMON_JSON and restart it, or leave it alone and make a builder beside it \
(docker buildx create --name podkiln --driver docker-container), to be named with --builder podkiln."
    fi
    said=$(grep -i error <<<"$said" | tail -n 1) || said='no reason given'
    fail "the engine at $(endpoint) cannot export OCI layouts with plain layers (${said#ERROR: }): take Docker \
Engine $ENGINE_SINCE and buildx $BUILDX_SINCE or newer, or a docker-container builder, to be named with --builder."
}

# --- Installing -------------------------------------------------------------------------------------------------------

apt() { # VERB ARGUMENT...
    # Descriptor 9 is the lock, which nothing that outlives this script may hold.
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@" \
        >>"$APT_LOG" 2>&1 9>&- ||
        fail "apt-get $1 failed ($(grep '^E:' "$APT_LOG" | tail -n 1)): see $APT_LOG, or install Docker Engine by hand."
}

older_than() { # PACKAGE VERSION: whether what apt would install is older, or nothing
    local candidate
    candidate=$(apt-cache policy "$1" | sed -n 's/^ *Candidate: //p')
    [[ -z $candidate || $candidate == '(none)' ]] || dpkg --compare-versions "$candidate" lt "$2"
}

# apt is asked for the mirror, not its files: it knows every format of sources, and the origin comes from the signed
# Release file, so a local mirror or a proxy under any name is found.
debian_mirror() {
    # shellcheck disable=SC2016  # the dollars are apt's
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Identifier: Packages' |
        awk -F'|' '$1 == "Debian" && $2 == "Debian" && !found++ { sub("/$", "", $3); print $3 }'
}

# Below 500, the priority of the host's own release, so nothing on the host is ever upgraded to it by itself.
add_newer_release() {
    local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    mirror=$(debian_mirror)
    [[ -n $mirror ]] ||
        fail "this Debian has Docker Engine older than $ENGINE_SINCE and no Debian source to derive one for $NEWER from: \
install Docker Engine and buildx by hand."
    cat >/etc/apt/sources.list.d/podkiln-$NEWER.sources <<EOF
# Docker Engine and buildx for podkiln (scripts/host/ensure_engine.sh); preferences.d/podkiln-$NEWER keeps it low.
Types: deb
URIs: $mirror
Suites: $NEWER
Components: main
Signed-By: $keyring
EOF
    cat >/etc/apt/preferences.d/podkiln-$NEWER <<EOF
Package: *
Pin: release n=$NEWER
Pin-Priority: 100
EOF
    note "added Debian $NEWER as a source for Docker's packages, pinned low: nothing is upgraded to it by itself."
    apt update
}

# Packages start their services when they are installed: the engine before its configuration is decided, the registry
# on port 5000, where a test or a user may want another. Debian's own switch for that; removed again on the way out.
forbid_service_starts() {
    [[ ! -e $POLICY ]] || return 0
    made_policy=yes
    printf '#!/bin/sh\n# %s; may be deleted if it no longer runs.\nexit 101\n' \
        'scripts/host/ensure_engine.sh is installing' >"$POLICY"
    chmod 755 "$POLICY"
}

install_missing() {
    local packages=() engine=() from='' registry=''
    command -v dockerd >/dev/null || engine+=(docker.io containerd)
    command -v docker >/dev/null || engine+=(docker-cli)
    has_buildx || engine+=(docker-buildx)
    # BuildKit clones git sources with the host's git, and dockerd's packages only recommend it.
    command -v git >/dev/null || packages+=(git ca-certificates)
    if ((with_tests)); then
        docker compose version >/dev/null 2>&1 || engine+=(docker-compose)
        command -v docker-registry >/dev/null || packages+=(docker-registry) registry=new
        command -v skopeo >/dev/null || packages+=(skopeo)
        command -v mmdebstrap >/dev/null || packages+=(mmdebstrap)
        command -v zstd >/dev/null || packages+=(zstd)
        command -v openssl >/dev/null || packages+=(openssl)
        command -v ssh-keygen >/dev/null || packages+=(openssh-client)
        command -v cc >/dev/null || packages+=(gcc libc6-dev)
        # Ubuntu's package is a snap, which needs systemd and shares no /tmp; what GitHub's machines have serves as well.
        has_chromium || [[ $ID == ubuntu ]] || packages+=(chromium)
    fi
    ((${#engine[@]} + ${#packages[@]})) || return 0

    note "installing from the distribution's packages: $(printf '%s ' "${engine[@]}" "${packages[@]}")"
    apt update
    if ((${#engine[@]})) && { older_than docker.io "$ENGINE_SINCE" || older_than docker-buildx "$BUILDX_SINCE"; }; then
        [[ $ID == debian ]] ||
            fail "this release has Docker Engine older than $ENGINE_SINCE: install Docker Engine and buildx by hand."
        add_newer_release
        # Named one by one. With `-t`, the dependencies come from there too, libc among them.
        from=/$NEWER
    fi
    if [[ $ID == ubuntu ]]; then
        # The same programs, packaged otherwise: docker.io holds the CLI, and docker-compose is the old one in Python.
        engine=("${engine[@]/#docker-compose/docker-compose-v2}")
        engine=("${engine[@]/#docker-cli/docker.io}")
    fi
    forbid_service_starts
    apt install --no-install-recommends "${engine[@]/%/$from}" "${packages[@]}"
    if [[ -n $registry ]] && has_systemd; then systemctl disable --quiet docker-registry; fi
    has_buildx || fail "docker buildx does not run after installing it: see $APT_LOG."
}

# --- Starting ---------------------------------------------------------------------------------------------------------

has_systemd() { [[ -d /run/systemd/system ]]; }

# An engine that nobody has configured or used yet gets the containerd image store; written to its usual place, so
# that whoever restarts it gets the same engine. The file, or images in the other store, mean that it is somebody's.
configure_new() {
    local link mtu options=''
    [[ ! -e $DAEMON_JSON && ! -e /var/lib/docker/image ]] || return 0
    # Docker's bridge has 1500 whatever the network has (clouds and tunnels often have less), and large packets from
    # containers then vanish: downloads in a build hang without an error.
    link=$(awk '$2 == "00000000" && !found++ { print $1 }' /proc/net/route) # the default route's; ip may not be here
    mtu=$(cat "/sys/class/net/${link:-none}/mtu" 2>/dev/null) || mtu=1500
    ((mtu >= 1500)) || options=",\"mtu\":$mtu"
    mkdir -p -- "${DAEMON_JSON%/*}"
    printf '%s\n' "${CONTAINERD_STORE%\}}$options}" >"$DAEMON_JSON"
}

start() {
    local pid='' last
    if has_systemd; then
        systemctl start docker >/dev/null 2>&1 || true # judged below, by whether it answers
    else
        # A session of its own, and no descriptor of ours: it outlives this shell and the terminal.
        setsid nohup dockerd >>"$LOG" 2>&1 </dev/null 9>&- &
        pid=$!
    fi
    for ((tries = 0; tries < 120; tries++)); do
        if engine_answers; then return 0; fi
        if [[ -n $pid ]] && ! kill -0 "$pid" 2>/dev/null; then break; fi
        sleep 0.5
    done
    if has_systemd; then
        fail "dockerd does not answer: \`journalctl -u docker\` says why."
    fi
    last=$(grep -v 'level=info' "$LOG" | tail -n 1)
    fail "dockerd does not answer (${last:-it said nothing}): see $LOG."
}

set_up() { # WHAT IS WRONG, WHAT TO DO ABOUT IT
    [[ ${PODKILN_NO_ENGINE_SETUP:-} != 1 ]] ||
        fail "$1, and PODKILN_NO_ENGINE_SETUP=1 forbids to change that: $2, or unset the variable."
    [[ $EUID -eq 0 && $ID =~ ^(debian|ubuntu)$ ]] ||
        fail "$1: $2 (as root on Debian or Ubuntu this script does it)."
    # Others may call this at the same moment. They wait here, and then find everything done.
    exec 9>"$LOCK"
    flock -w 900 9 || fail "another ensure_engine.sh has held $LOCK for 15 minutes: look at what it does."
    install_missing
    if ! engine_answers; then
        configure_new
        start
    fi
    exec 9>&-
}

# --- Main -------------------------------------------------------------------------------------------------------------

with_tests=0
case ${1:-} in
    '') ;;
    --with-tests) with_tests=1 ;;
    *) printf 'usage: %s [--with-tests]\n' "$0" >&2 && exit 2 ;;
esac

ID=unknown
# shellcheck source=/dev/null
[[ ! -r /etc/os-release ]] || ID=$(. /etc/os-release && printf '%s' "$ID")

test_tools_complete() {
    command -v docker-registry >/dev/null && command -v skopeo >/dev/null && command -v mmdebstrap >/dev/null &&
        command -v zstd >/dev/null && command -v openssl >/dev/null && command -v ssh-keygen >/dev/null &&
        command -v cc >/dev/null && has_chromium && docker compose version >/dev/null 2>&1
}

if ! engine_answers; then
    where=$(endpoint)
    socket=${where#unix://}
    # Somebody's engine elsewhere: setting up one here would not be what they asked for.
    [[ $where == unix:///var/run/docker.sock || $where == unix:///run/docker.sock ]] ||
        fail "no engine answers at $where: start it, or unset DOCKER_HOST (docker context use default) for a local one."
    [[ ! -S $socket || -w $socket ]] ||
        fail "this user may not use the engine at $where: join the group docker (usermod -aG docker USER) and log in again."
    set_up "no Docker Engine answers at $where" \
        "install and start Docker Engine $ENGINE_SINCE and buildx $BUILDX_SINCE or newer"
elif ! has_buildx; then
    set_up "the docker command has no buildx" "install buildx $BUILDX_SINCE or newer"
elif ((with_tests)) && ! test_tools_complete; then
    set_up "the tests' programs are not all here" "install docker-registry, skopeo, mmdebstrap, zstd, openssl, ssh, docker compose, a C compiler and Chromium"
fi
require_capable
