#!/bin/sh
# Ask apt, inside of a base image, what it would install, and write down its answers for `./build.py lock`.
#
# Usage: resolve_packages.sh OUT_FOLDER [PACKAGE...]
#
# Without packages: where those come from that the base has already.
#
# /build/locked may hold packages, as dpkg's status file tells of them: apt is asked as if they were installed onto the
# base, in the place of what that has of their names.
#
# Build secret: apt-sources, a Debian mirror to use instead of the base's own.
set -eu

out=$1
shift
mkdir -p "$out" /tmp/sources
cp -R /etc/apt/sources.list.d/. /tmp/sources
if [ -s /run/secrets/apt-sources ]; then
    cp /run/secrets/apt-sources /tmp/sources/debian.sources
fi
export LC_ALL=C
sources="Dir::Etc::SourceParts=/tmp/sources"
for answer in stanzas unknown refused blamed; do
    : >"$out/$answer"
done

apt-get --option "$sources" --error-on=any update
installed=/var/lib/dpkg
if [ -s /build/locked ]; then
    installed=/tmp/installed
    mkdir "$installed"
    # As the archive tells of them, where it still has that version: the lock keeps a part of that, and apt would take
    # what lacks the rest (Source) for another build.
    sed -n 's/^Package: //p; s/^Version: //p' /build/locked | paste -d = - - >/tmp/locked
    xargs apt-cache --option "$sources" show </tmp/locked 2>/dev/null |
        awk 'BEGIN { RS = ""; ORS = "\n\n" } sub(/\n/, "\nStatus: install ok installed\n")' >/tmp/told
    # dpkg refuses a status file that tells of archives.
    awk 'BEGIN { RS = ""; ORS = "\n\n" } !($2 in seen) { seen[$2] = 1; print }' \
        /tmp/told /build/locked /var/lib/dpkg/status |
        sed -E '/^(Filename|Size|MD5sum|SHA256): /d' >"$installed/status"
fi

# shellcheck disable=SC2016  # the dollars are apt's and dpkg's
apt-get --option "$sources" indextargets --format '$(LABEL)|$(REPO_URI)' 'Identifier: Packages' >"$out/archives"
# shellcheck disable=SC2016
dpkg-query --admindir="$installed" --show --showformat='${binary:Package} ${Version}\n' >/tmp/base
sort /tmp/base >"$out/base"

if [ $# -eq 0 ]; then
    cd /tmp
    # shellcheck disable=SC2016
    dpkg-query --show --showformat='${Package}=${Version}\n' | sort >chosen
    xargs apt-get --option "$sources" --quiet=2 --print-uris --option Acquire::ForceHash=sha256 download \
        <chosen >"$out/uris"
    xargs apt-cache --option "$sources" show <chosen >"$out/stanzas"
    : >"$out/simulated"
    exit
fi

ask() { # PACKAGE...
    apt-get --option "$sources" --option Dir::State::status="$installed/status" --simulate --yes --quiet=2 \
        --no-install-recommends install "$@"
}

# Above what is locked, a package that cannot be had is told of by its name, and so is one that changes another.
if [ -s /build/locked ]; then
    for package in "$@"; do
        apt-cache --option "$sources" show "$package" >/dev/null 2>&1 || echo "$package" >>"$out/unknown"
    done
    if ask "$@" >"$out/simulated" 2>"$out/refused"; then
        : >"$out/refused" # of warnings
    else
        cat "$out/simulated" >>"$out/refused"
    fi
    if [ -s "$out/refused" ] || grep -Eq '^Remv |^Inst [^ ]+ \[' "$out/simulated"; then
        for package in "$@"; do
            ask "$package" 2>/dev/null | sed "s/^/$package /" >>"$out/blamed" || true
        done
        : >"$out/uris"
        exit
    fi
fi

ask "$@" >"$out/simulated"
set -- --option "$sources" --option Dir::State::status="$installed/status" --yes --quiet=2 --no-install-recommends \
    install "$@"
# For the main archive it prints MD5, unless it is told.
apt-get --print-uris --option Acquire::ForceHash=sha256 "$@" >"$out/uris"
sed -n 's/^Inst \([^ ]*\) .*(\([^ ]*\) .*/\1=\2/p' "$out/simulated" >/tmp/chosen
[ ! -s /tmp/chosen ] || xargs apt-cache --option "$sources" show </tmp/chosen >"$out/stanzas"
