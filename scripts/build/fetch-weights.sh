#!/bin/sh
# Put a model's weights into /opt/models with the pod's own fetcher, which checks their sha256.
#
# Usage: fetch-weights.sh MODEL
#
# Runs at build time, bind-mounted: nothing of it stays in the image. Optional build secrets:
#   ca                        PEM bundle of a corporate certificate authority
#   hf_token, civitai_token   tokens, where a licence must have been accepted or a login is asked for
set -eu

model=$1
secrets=/run/secrets

if [ -s "$secrets/ca" ]; then
    export SSL_CERT_FILE="$secrets/ca"
fi
if [ -s "$secrets/hf_token" ]; then
    HF_TOKEN=$(cat "$secrets/hf_token")
    export HF_TOKEN
fi
if [ -s "$secrets/civitai_token" ]; then
    CIVITAI_TOKEN=$(cat "$secrets/civitai_token")
    export CIVITAI_TOKEN
fi

# Its workspace is /opt, so that files grow where they belong: a move would be one more copy of them.
state=$(mktemp -d)
umask 022
WORKSPACE=/opt PODKILN_RUN=$state python3 -I -S /opt/podkiln fetch "$model"

# What it remembers for its next run is nothing that an image is to hold.
rm -rf "$state" /opt/.podkiln
find /opt/models -type d -name .podkiln -prune -exec rm -rf {} +
