#!/bin/sh
# Make /opt/uv, the installer of the Python layers, in a stage of its own that does not reach the image.
#
# Usage: install-uv.sh REQUIREMENTS
#
# /kept may have the kept packages: each wheel in a folder that is called by its sha256.
set -eu

requirements=$1
secrets=/run/secrets

if [ -s "$secrets/ca" ]; then
    # pip's default way to check certificates fails at an index that is named by its IP address.
    export PIP_CERT="$secrets/ca" PIP_USE_DEPRECATED=legacy-certs
fi
# Where it is kept, no index is asked.
set -- --no-index
hashes=$(sed -n 's/.*--hash=sha256:\([0-9a-f]*\).*/\1/p' "$requirements")
for hash in $hashes; do
    if [ ! -d "/kept/wheels/$hash" ]; then
        set --
        break
    fi
    set -- "$@" --find-links "/kept/wheels/$hash"
done
if [ $# -eq 0 ] && [ -s "$secrets/python-index" ]; then
    PIP_INDEX_URL=$(cat "$secrets/python-index")
    export PIP_INDEX_URL
fi

python3 -m venv /opt/uv
/opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check --quiet --require-hashes \
    --requirement "$requirements" "$@"
