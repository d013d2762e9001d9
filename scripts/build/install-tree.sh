#!/bin/sh
# Copy a source tree into the image without what only its checkout needs, and compile it.
#
# Usage: install-tree.sh SOURCE TARGET
set -eu

mkdir -p "$2"
cp -R "$1/." "$2/"
# A mounted context carries its builder's owner and umask; an image must not.
find "$2" \( -name .git -o -name __pycache__ \) -prune -exec rm -rf {} +
chown -R 0:0 "$2"
chmod -R u=rwX,go=rX "$2"
/opt/venv/bin/python -I -S "$(dirname "$0")/compile_bytecode.py" "$2"
