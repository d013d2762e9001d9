#!/bin/sh
# Make /opt/uv, the installer of the Python layers, in a stage of its own that does not reach the image.
#
# Usage: install-uv.sh REQUIREMENTS
set -eu

secrets=/run/secrets

if [ -s "$secrets/ca" ]; then
    # pip's default way to check certificates fails at an index that is named by its IP address.
    export PIP_CERT="$secrets/ca" PIP_USE_DEPRECATED=legacy-certs
fi
if [ -s "$secrets/python-index" ]; then
    PIP_INDEX_URL=$(cat "$secrets/python-index")
    export PIP_INDEX_URL
fi

python3 -m venv /opt/uv
/opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check --quiet --require-hashes --requirement "$1"
