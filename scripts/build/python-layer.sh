#!/bin/sh
# Install one hash-locked requirements file into a Python environment of the image, leave out what the image does not
# need, and compile the rest.
#
# Usage: python-layer.sh REQUIREMENTS ENVIRONMENT [RULES]
#
# Runs at build time, bind-mounted: nothing of it stays in the image. /kept may have the kept packages: each wheel in a
# folder that is called by its sha256, /ca/ca.pem is the bundle of a corporate certificate authority. An optional build
# secret:
#   python-index  URL of a package index to use instead of the default (may hold a login, hence a secret)
set -eu

requirements=$1
environment=$2
rules=${3-}
secrets=/run/secrets

if [ -s /ca/ca.pem ]; then
    export SSL_CERT_FILE=/ca/ca.pem
fi
# Where all wheels are kept, no index is asked.
set -- --offline --no-index
hashes=$(sed -n 's/.*--hash=sha256:\([0-9a-f]*\).*/\1/p' "$requirements")
for hash in $hashes; do
    if [ ! -d "/kept/wheels/$hash" ]; then
        set --
        break
    fi
    set -- "$@" --find-links "/kept/wheels/$hash"
done
if [ $# -eq 0 ] && [ -s "$secrets/python-index" ]; then
    UV_DEFAULT_INDEX=$(cat "$secrets/python-index")
    export UV_DEFAULT_INDEX
fi

# Where no cache is mounted, what uv fetched would stay in the layer.
if ! grep -q ' /root/\.cache/uv ' /proc/self/mountinfo; then
    export UV_NO_CACHE=1
fi

# Copies, because the cache is a mount of its own and hard links end at its edge. No dependencies are looked up: the
# lock has all of them, each in one of the layers.
/opt/uv/bin/uv pip install --python "$environment/bin/python" --require-hashes --no-deps --link-mode copy \
    --only-binary :all: --no-progress --requirements "$requirements" "$@"

# uv's lock can be written by anybody. Records of where and when a wheel was installed differ between builders, and
# only wheels from a folder have one; nothing reads them.
rm -f "$environment/.lock"
find "$environment/lib" -name uv_cache.json -path '*.dist-info/*' | while read -r record; do
    sed -i '\|\.dist-info/uv_cache\.json,|d' "${record%/*}/RECORD"
    rm "$record"
done

if [ -n "$rules" ]; then
    # The packages are not imported here, not even by a .pth file: that would leave bytecode of this moment.
    "$environment/bin/python" -I -S "$(dirname "$0")/strip_files.py" "$rules" "$environment"/lib/python*/site-packages
fi

"$environment/bin/python" -I -S "$(dirname "$0")/compile_bytecode.py" "$environment/lib"
