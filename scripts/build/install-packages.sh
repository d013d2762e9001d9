#!/bin/sh
# Install Debian packages: those of the apt lock, where the base has one, and else what its sources have today.
#
# Usage: install-packages.sh PACKAGE...
#
# Runs at build time, bind-mounted: nothing of it stays in the image. What may be mounted besides:
#   /apt         the lock: an index and a list of mirrors for each archive, and what the base has to hold
#   /kept        the kept packages: the .debs of each archive, as its own server has them
#   apt-sources  a build secret: a Debian mirror to use instead (may hold a login)
set -eu

lock=/apt
mirror=/run/secrets/apt-sources
export DEBIAN_FRONTEND=noninteractive
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # apt fetches as a user of its own

fail() {
    printf 'podkiln: %s\n' "$1" >&2
    exit 1
}

# The kept packages come first, and then the mirror that was given. Its security archive has the name that Debian gives to its own.
mirrors_of() { # ARCHIVE
    cat "$lock/$1.mirrors"
    [ ! -d "/kept/debs/$1" ] || printf 'file:/kept/debs/%s/\tpriority:0\ttype:deb\n' "$1"
    [ -s "$mirror" ] || return 0
    given=$(sed -n 's|^URIs: *\([^ ]*[^/ ]\)/*$|\1|p' "$mirror")
    printf '%s%s/\tpriority:1\ttype:deb\n' "$given" "${1#debian}"
}

# The index alone counts, whose hashes are in the lock: so apt needs no key here.
locked_sources() {
    # shellcheck disable=SC2016  # the dollars are dpkg's
    has=$(dpkg-query --show --showformat='${binary:Package} ${Version}\n' | LC_ALL=C sort | sha256sum)
    [ "$has" = "$(cat "$lock/base.sha256")" ] || fail "The base is another one than the apt lock was made for."
    mkdir "$work/sources"
    for list in "$lock"/*.mirrors; do
        archive=$(basename "$list" .mirrors)
        # apt asks all lines for a Release file, and gives up where one does not answer: so the rest comes later.
        grep type:index "$list" >"$work/$archive.mirrors"
        echo "deb [trusted=yes] mirror+file:$work/$archive.mirrors ./" >"$work/sources/$archive.list"
    done
}

all_mirrors() {
    for list in "$lock"/*.mirrors; do
        archive=$(basename "$list" .mirrors)
        mirrors_of "$archive" >"$work/$archive.mirrors"
    done
}

run_apt() { # ARGUMENT...
    {
        apt-get "$@" 2>&1 || touch "$work/failed"
    } | tee "$work/log"
    [ ! -e "$work/failed" ] || explain
}

# apt asks the next mirror after one that gave something else. Only where none had the right package does it end, and
# its last sentence is then about the last mirror.
explain() {
    other=$(awk '/^Err:/ { package = $4 " " $5 } /^ *Hash Sum mismatch/ { print package; exit }' "$work/log")
    [ -z "$other" ] || fail "No mirror has the $other that the apt lock names: what came has another sha256."
    exit 100
}

# In a folder of their own, and not in the place of the base's: the image keeps the usual ones.
main=/etc/apt/sources.list
if [ -d "$lock" ]; then
    locked_sources
    main=/dev/null
elif [ -s "$mirror" ]; then
    cp -R /etc/apt/sources.list.d "$work/sources"
    cp "$mirror" "$work/sources/debian.sources"
else
    ln -s /etc/apt/sources.list.d "$work/sources"
fi
sources="Dir::Etc::SourceParts=$work/sources"
run_apt --option "Dir::Etc::SourceList=$main" --option "$sources" update
if [ -d "$lock" ]; then
    all_mirrors
fi
run_apt --option "Dir::Etc::SourceList=$main" --option "$sources" --yes --no-install-recommends install "$@"
