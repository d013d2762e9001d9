#!/bin/sh
# Put a custom node into the image: its tree at /source with its submodules, patched, and compiled. Packages that are on
# no index come beside it, on Python's path; code that it imports from a folder lies there.
#
# Usage: install-node.sh ID TARGET [submodule PART FOLDER | path PART NAME FOLDER | code PART FOLDER PROGRAM |
#                                   patched PROGRAM PATCHES]...
#
# Runs at build time, bind-mounted beside install-tree.sh. /parts/PART are the other trees, /patches/PART the patches of
# code, which PROGRAM applies; `-` for none.
set -eu

id=$1
target=$2
shift 2
here=$(dirname "$0")
assembled=$(mktemp -d)
code=$(mktemp -d)
trap 'rm -rf "$assembled" "$code"' EXIT

cp -R /source/. "$assembled/"
while [ $# -gt 0 ]; do
    case $1 in
    submodule)
        above=$3
        while [ "$above" != . ]; do
            if [ -L "$assembled/$above" ]; then
                echo "podkiln: The custom node $id: its submodule $3 lies behind the link $above." >&2
                exit 1
            fi
            above=$(dirname "$above")
        done
        # What a checkout has there, or its address has today, is not what is locked.
        rm -rf "${assembled:?}/$3"
        mkdir -p "$assembled/$3"
        cp -R "/parts/$2/." "$assembled/$3/"
        shift 3
        ;;
    path)
        if [ ! -d "/parts/$2/$4" ]; then
            echo "podkiln: The custom node $id: its path $2 has no folder $4 at this commit." >&2
            exit 1
        fi
        sh "$here/install-tree.sh" "/parts/$2" "/opt/node-paths/$3"
        for packages in /opt/venv/lib/python*/site-packages; do
            echo "/opt/node-paths/$3/$4" >"$packages/podkiln-$3.pth"
        done
        shift 4
        ;;
    code)
        mkdir "$code/$2"
        cp -R "/parts/$2/." "$code/$2/"
        if [ "$4" != - ]; then
            python3 -I -S "$4" "$id" "$code/$2" "/patches/$2"
        fi
        sh "$here/install-tree.sh" "$code/$2" "$3"
        shift 4
        ;;
    patched)
        python3 -I -S "$2" "$id" "$assembled" "$3"
        shift 3
        ;;
    *)
        echo "podkiln: install-node.sh knows no $1." >&2
        exit 1
        ;;
    esac
done
sh "$here/install-tree.sh" "$assembled" "$target"
