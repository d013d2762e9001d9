#!/bin/sh
# Copy a source tree into the image without what only its checkout needs, and compile it.
#
# Usage: install-tree.sh SOURCE TARGET
set -eu

mkdir -p "$2"
cp -R "$1/." "$2/"
# A link out of it would be one to the image's own files; a pod that fetches the tree refuses it too.
root=$(readlink -f "$2")
find "$root" -type l | while IFS= read -r link; do
    case $(readlink -m "$link") in
    "$root" | "$root"/*) ;;
    *)
        echo "podkiln: The source tree for $root holds the link ${link#"$root"/}, which leads out of it." >&2
        exit 1
        ;;
    esac
done
# A mounted context carries its builder's owner and umask; an image must not.
find "$2" \( -name .git -o -name __pycache__ \) -prune -exec rm -rf {} +
chown -R 0:0 "$2"
chmod -R u=rwX,go=rX "$2"
/opt/venv/bin/python -I -S "$(dirname "$0")/compile_bytecode.py" "$2"
