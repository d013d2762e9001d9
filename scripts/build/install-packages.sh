#!/bin/sh
# Install Debian packages: those of the apt lock, where the base has one, and else what its sources have today.
#
# Usage: install-packages.sh PACKAGE...
#
# Runs at build time, bind-mounted: nothing of it stays in the image. What may be mounted besides:
#   /apt         the lock: an index of each archive, the time of their snapshots, and what the base has to hold
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

# A list for apt-transport-mirror(1): the kept packages first, then the mirror that was given, the mirrors that the base
# has, and snapshots. A given mirror's security archive has the name that Debian gives to its own.
mirrors_of() { # ARCHIVE
    index_of "$1"
    [ ! -d "/kept/debs/$1" ] || printf 'file:/kept/debs/%s/\tpriority:0\ttype:deb\n' "$1"
    if [ -s "$mirror" ]; then
        given=$(sed -n 's|^URIs: *\([^ ]*[^/ ]\)/*$|\1|p' "$mirror")
        printf '%s%s/\tpriority:1\ttype:deb\n' "$given" "${1#debian}"
    fi
    own_mirrors "$1" | sort -u | sed 's|$|\tpriority:2\ttype:deb|'
    own_snapshot "$1" | sed 's|$|\tpriority:3\ttype:deb|'
}

index_of() { # ARCHIVE
    printf 'file:%s/%s/\tpriority:1\ttype:index\n' "$lock" "$1"
}

# Of the base's sources, by what they call the suites: security updates have an archive of their own. Nothing has been
# fetched yet by which apt could tell archives apart.
own_mirrors() { # ARCHIVE
    # shellcheck disable=SC2016  # the dollars are apt's
    apt-get --no-release-info indextargets --format '$(RELEASE)|$(REPO_URI)' 'Identifier: Packages' |
        awk -F'|' -v archive="$1" '($1 ~ /-security$/ ? "debian-security" : "debian") == archive { print $2 }'
}

# apt knows the snapshot service (apt.conf(5), Acquire::Snapshots). By http: the base has no certificates yet, and the
# hashes are what is relied on.
own_snapshot() { # ARCHIVE
    apt-config dump --format '%f|%v%n' Acquire::Snapshots::URI |
        awk -F'|' -v archive="$1" -v time="$(cat "$lock/snapshot")" '
            tolower($1) ~ "::(origin|override::label)::" archive "$" {
                sub(/^https:/, "http:", $2); sub(/@SNAPSHOTID@/, time, $2); print $2
            }'
}

# The index alone counts, whose hashes are in the lock: so apt needs no key here.
locked_sources() {
    # shellcheck disable=SC2016  # the dollars are dpkg's
    has=$(dpkg-query --show --showformat='${binary:Package} ${Version}\n' | LC_ALL=C sort | sha256sum)
    [ "$has" = "$(cat "$lock/base.sha256")" ] || fail "The base is another one than the apt lock was made for."
    mkdir "$work/sources"
    for folder in "$lock"/*/; do
        archive=$(basename "$folder")
        # apt asks all lines for a Release file, and gives up where one does not answer: so the rest comes later.
        index_of "$archive" >"$work/$archive.mirrors"
        echo "deb [trusted=yes] mirror+file:$work/$archive.mirrors ./" >"$work/sources/$archive.list"
    done
}

all_mirrors() {
    for folder in "$lock"/*/; do
        archive=$(basename "$folder")
        mirrors_of "$archive" >"$work/$archive.mirrors"
    done
}

run_apt() { # ARGUMENT...
    {
        # A step that is cut off is thrown away whole: its files need not be on the disk one by one.
        apt-get --option Dpkg::Options::=--force-unsafe-io "$@" 2>&1 || touch "$work/failed"
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
