#!/bin/sh
# Install Debian packages onto others that stay as they are. Of those that are there and are named again, the files are
# put back.
#
# Usage: add-packages.sh PACKAGE...
#
# Runs at build time, bind-mounted beside install-packages.sh, as which it has the same mounts.
set -eu

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

installed() { # FILE
    # shellcheck disable=SC2016  # the dollars are dpkg's
    dpkg-query --show --showformat='${binary:Package} ${Version}\n' | LC_ALL=C sort >"$1"
}

installed "$work/before"
sh "$(dirname "$0")/install-packages.sh" --no-remove --reinstall "$@"
installed "$work/after"
changed=$(LC_ALL=C comm -23 "$work/before" "$work/after")
if [ -n "$changed" ]; then
    printf 'podkiln: What is added changes packages of the layers below: %s.\n' "$changed" >&2
    exit 1
fi
