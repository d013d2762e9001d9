#!/usr/bin/env bash
# Make a base image's root file system without a registry: Debian trixie as a tar, from a Debian mirror.
#
#   scripts/host/bootstrap_base.sh [--index FOLDER] OUT_TAR [MIRROR]
#   APT_MIRROR=MIRROR  the same as the argument, for one that holds a login
#
# With --index it is made of the packages of the lock, which are in the folder as in a build context's apt/.
# For air-gapped sites and tests, where debian:trixie-slim cannot be pulled. What comes out is meant to be that
# image in all that a Dockerfile can notice: the same package set, the same files left out, the same apt settings.
# The same state of the mirror gives the same bytes (SOURCE_DATE_EPOCH, 0 unless set).
set -Eeuo pipefail

readonly SUITE=trixie
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
readonly EXAMPLE=/usr/share/doc/apt/examples/debian.sources # in Debian's package of apt

without_logins() { sed 's|://[^/@]*@|://|g'; }

die() {
    printf 'bootstrap_base: %s\n' "$1" | without_logins >&2
    exit 1
}

# The mirror that this host already uses. apt is asked, not its files: it knows every format of sources, and
# origin and label come from the signed Release file, so a proxy or a local mirror under any name is found.
host_mirror() { # LABEL
    command -v apt-get >/dev/null || return 0
    # shellcheck disable=SC2016  # the dollars are apt's
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Identifier: Packages' |
        awk -F'|' -v label="$1" '$1 == "Debian" && $2 == label && !found++ { sub("/$", "", $3); print $3 }'
}

is_root_on_debian() {
    [[ $EUID -eq 0 && -r /etc/debian_version ]] && command -v apt-get >/dev/null
}

# Plain http, for a host's own mirror, which the base's sources name: the base has no CA certificates, and apt checks
# signatures, not transport. A mirror that is given is asked as it stands, since a login may be in it.
as_http() { printf '%s\n' "${1/#https:/http:}"; }

reachable() { # MIRROR SUITE
    local release=$work/Release.probe
    rm -f "$release"
    /usr/lib/apt/apt-helper download-file "$1/dists/$2/InRelease" "$release" >/dev/null 2>&1 && [[ -s $release ]]
}

source_of() { # MIRROR SUITE
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n\n' "$1" "$2" "$KEYRING"
}

install_tools() {
    local missing=()
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    [[ -r $KEYRING ]] || missing+=(debian-archive-keyring)
    ((${#missing[@]})) || return 0
    is_root_on_debian ||
        die "needs ${missing[*]}: install them (apt-get install ${missing[*]}), or run this as root on Debian or Ubuntu."
    apt-get -qq update >&2
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install --no-install-recommends \
        "${missing[@]}" >/dev/null
}

# dpkg and apt are told what the slim image tells them, so that packages installed later leave out the same files.
write_settings() { # DIR
    cat >"$1/dpkg-slim" <<'EOF'
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/groff/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/linda/*
path-exclude=/usr/share/lintian/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
EOF
    cat >"$1/apt-slim" <<'EOF'
// Downloaded packages and apt's binary caches would only make layers larger.
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
APT::AutoRemove::SuggestsImportant "false";
EOF
    printf '#!/bin/sh\n# No service starts while an image is built.\nexit 101\n' >"$1/policy-rc.d"
    # The kernel and the container runtime bring their own; a host's would differ from machine to machine.
    printf 'localhost\n' >"$1/hostname"
}

# The index alone counts, whose hashes are in the lock. apt asks every line of a list for a Release file, and gives up
# where one does not answer: so it has the index first, and the mirrors once that is read.
use_index() { # FOLDER
    local folder name row
    suite="" # of an index without a Release file, nobody can tell
    mkdir "$work/lists" "$work/mirrors"
    cp -R "$1" "$work/index"
    for folder in "$work"/index/*/; do
        name=$(basename "$folder")
        row="file:$folder"$'\tpriority:1\ttype:index'
        printf '%s\n' "$row" >"$work/lists/$name"
        {
            printf '%s\n' "$row"
            mirror_of "$name" | sed 's|$|/\tpriority:2\ttype:deb|'
            snapshot_of "$name" | sed 's|$|\tpriority:3\ttype:deb|'
        } >"$work/mirrors/$name"
        printf 'deb [trusted=yes] mirror+file:%s ./\n' "$work/lists/$name" >>"$work/sources"
    done
    # mmdebstrap keeps apt's settings for the new root in a file.
    options=(--skip=update
        --setup-hook="APT_CONFIG=\$MMDEBSTRAP_APT_CONFIG apt-get update && cp $work/mirrors/* $work/lists")
    write_own_sources
}

mirror_of() { # ARCHIVE
    if [[ $1 != debian-security ]]; then printf '%s\n' "$mirror"; elif [[ -n $security ]]; then printf '%s\n' "$security"; fi
}

# Which snapshot service this host's apt knows: the one of Debian 13 and newer does (apt.conf(5), Acquire::Snapshots).
snapshot_of() { # ARCHIVE
    apt-config dump --format '%f|%v%n' Acquire::Snapshots::URI |
        awk -F'|' -v archive="$1" -v time="$(<"$work/index/snapshot")" '
            tolower($1) ~ "::(origin|override::label)::" archive "$" {
                sub(/^https:/, "http:", $2); sub(/@SNAPSHOTID@/, time, $2); print $2
            }'
}

# Whichever mirror is asked today, the base's own sources are those that its apt comes with, as an example: the packages
# alone decide what is in the base, and a mirror's login is not for those who get it. The example is documentation,
# which the base is to be without.
write_own_sources() {
    cat "$work/dpkg-slim" >"$work/dpkg-final"
    printf 'path-include=%s\nforce-unsafe-io\n' "$EXAMPLE" >>"$work/dpkg-slim"
    {
        printf '#!/usr/bin/env bash\nset -Eeuo pipefail\n'
        declare -f source_of own_sources
        printf 'SUITE=%q KEYRING=%q EXAMPLE=%q FINAL=%q\n' "$SUITE" "$KEYRING" "$EXAMPLE" "$work/dpkg-final"
        # shellcheck disable=SC2016  # the dollar is that script's
        printf 'own_sources "$1"\n'
    } >"$work/own-sources"
    chmod 755 "$work/own-sources"
    options+=(--customize-hook="$work/own-sources \"\$1\" >$work/debian.sources")
}

own_sources() { # ROOT
    local uris
    mapfile -t uris < <(sed -n 's|^URIs: *||p' "$1$EXAMPLE")
    [[ ${#uris[@]} -eq 2 ]] || { echo "apt's example of sources has another form" >&2 && return 1; }
    rm "$1$EXAMPLE"
    cat "$FINAL" >"$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
    source_of "${uris[0]}" "$SUITE"
    source_of "${uris[0]}" "$SUITE-updates"
    source_of "${uris[1]}" "$SUITE-security"
}

use_mirror() {
    reachable "$mirror" "$SUITE" || die "the mirror $mirror does not serve $SUITE: name another one."
    {
        source_of "$mirror" "$SUITE"
        if reachable "$mirror" "$SUITE-updates"; then source_of "$mirror" "$SUITE-updates"; fi
        if [[ -n $security ]] && reachable "$security" "$SUITE-security"; then source_of "$security" "$SUITE-security"; fi
    } >"$work/sources"
    if [[ -n $given || $mirror$security == *@* ]]; then write_own_sources; else cp "$work/sources" "$work/debian.sources"; fi
}

index=""
if [[ ${1:-} == --index && $# -ge 2 ]]; then
    index=$2
    shift 2
fi
[[ $# -ge 1 && $# -le 2 ]] || die "usage: $0 [--index FOLDER] OUT_TAR [MIRROR]"
out=$1
[[ -d $(dirname -- "$out") ]] || die "the directory of $out does not exist: make it first."

install_tools
given=${2:-${APT_MIRROR:-}}
mirror=${given:-$(host_mirror Debian)}
if [[ -z $mirror ]] && is_root_on_debian; then
    apt-get -qq update >&2 # a fresh container has no package lists, and then apt knows no origins either
    mirror=$(host_mirror Debian)
fi
[[ -n $mirror ]] ||
    die "this host's apt has no source of Debian to take the mirror from, as on Ubuntu: name a mirror."
mirror=${mirror%/}
# A mirror that was given may well carry no security suite; a host's own is only known by its label.
if [[ -n $given ]]; then
    security=$mirror-security
else
    mirror=$(as_http "$mirror")
    security=$(as_http "$(host_mirror Debian-Security)")
fi

work=$(mktemp -d)
aside=$(mktemp -- "$out.XXXXXX")
trap 'rm -rf -- "$work" "$aside"' EXIT
# mmdebstrap leaves root in its unshared mode, and must still be able to read the settings.
chmod 755 "$work"
write_settings "$work"

suite=$SUITE
options=()
if [[ -n $index ]]; then use_index "$index"; else use_mirror; fi

export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
# Sources are named as in the slim image, because that is the file which a build puts a mirror over. /dev is the
# container runtime's to fill.
# Whatever apt mmdebstrap runs is this host's, and obeys the settings in the new root: the ones for the image would have
# it clean this host's caches. So they go in last, and mmdebstrap's own last run of apt, to clean up, is left out.
# Nor may it take away its own policy-rc.d in the end, which would be ours.
#
# The hooks' $1 is the root file system, expanded by the shell that mmdebstrap starts. When the network goes away in the
# middle, apt neither ends nor keeps still: hence the limit, some 30 times what it takes.
# shellcheck disable=SC2016
# In the foreground, so that who ends this script's process group ends mmdebstrap, which then cleans up.
if ! timeout --foreground --kill-after=10 900 mmdebstrap --variant=minbase --format=tar --keyring="$KEYRING" \
    --skip=output/dev --skip=cleanup/apt --skip=chroot/policy-rc.d \
    --dpkgopt="$work/dpkg-slim" "${options[@]}" \
    --customize-hook='rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*' \
    --customize-hook="upload $work/debian.sources /etc/apt/sources.list.d/debian.sources" \
    --customize-hook="upload $work/policy-rc.d /usr/sbin/policy-rc.d" \
    --customize-hook="upload $work/hostname /etc/hostname" \
    --customize-hook='chmod 755 "$1/usr/sbin/policy-rc.d"; chmod 644 "$1/etc/hostname"' \
    --customize-hook=': >"$1/etc/resolv.conf"; : >"$1/etc/machine-id"' \
    --customize-hook='rm -rf "$1"/var/log/* "$1"/var/cache/ldconfig/* "$1"/var/cache/debconf/*-old "$1"/var/lib/dpkg/*-old' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' \
    --customize-hook="upload $work/apt-slim /etc/apt/apt.conf.d/99slim" \
    "$suite" "$aside" "$work/sources" >"$work/log" 2>&1; then
    tail -n 20 "$work/log" | without_logins >&2
    die "mmdebstrap failed on $mirror; its last lines are above."
fi
chmod 644 "$aside"
mv -f -- "$aside" "$out"
