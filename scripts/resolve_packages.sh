#!/bin/sh
# Ask apt, inside of a base image, what it would install, and write down its answers for `./build.py lock`.
#
# Usage: resolve_packages.sh OUT_FOLDER [PACKAGE...]
#
# Without packages: where those come from that the base has already.
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

apt-get --option "$sources" --error-on=any update
# shellcheck disable=SC2016  # the dollars are apt's and dpkg's
apt-get --option "$sources" indextargets --format '$(LABEL)|$(REPO_URI)' 'Identifier: Packages' >"$out/archives"
# shellcheck disable=SC2016
dpkg-query --show --showformat='${binary:Package} ${Version}\n' | sort >"$out/base"

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

set -- --option "$sources" --yes --quiet=2 --no-install-recommends install "$@"
apt-get --simulate "$@" >"$out/simulated"
# For the main archive it prints MD5, unless it is told.
apt-get --print-uris --option Acquire::ForceHash=sha256 "$@" >"$out/uris"
sed -n 's/^Inst \([^ ]*\) .*(\([^ ]*\) .*/\1=\2/p' "$out/simulated" >/tmp/chosen
[ ! -s /tmp/chosen ] || xargs apt-cache --option "$sources" show </tmp/chosen >"$out/stanzas"
