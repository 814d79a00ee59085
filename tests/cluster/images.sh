#!/usr/bin/env bash
# Builds the project's images from its Dockerfiles and, when a node is up, brings them into its containerd. Usage: images.sh [STATE_DIR]
# Layers are kept in the user's cache: only what changed is made again.
set -euo pipefail
source "$(dirname "$0")/node/common.sh"
STATE=${1:-}
OPERATOR_IMAGE=localhost/yolastic-operator:test
WORKER_IMAGE=localhost/yolastic-worker:test

# The host's way to its package index, if it has one of its own, is the build's way too.
PASS=()
for name in PIP_INDEX_URL UV_DEFAULT_INDEX; do [ -z "${!name:-}" ] || PASS+=(--build-arg "$name=${!name}"); done

build() { # image, dockerfile, further arguments
  local image=$1 file=$2 log; shift 2
  log=$CACHE/${file##*/}.log
  say "$image: building from ${file##*/}"
  image_tool bud -q --layers --isolation chroot --network host --build-arg "PYTHON_IMAGE=$BASE_IMAGE" "${PASS[@]}" "$@" \
    -f "$file" -t "$image" "$ROOT" >"$log" 2>&1 || { tail -n 20 "$log" >&2; die "$image could not be built, see $log"; }
}

build $OPERATOR_IMAGE "$ROOT/Dockerfile.operator"
build $WORKER_IMAGE "$ROOT/Dockerfile.worker" --target cpu

if [ -n "$STATE" ]; then
  # One layout for both: the layers they share are carried once.
  say "images: bringing them into the node"
  LAYOUT=$(mktemp -d "$STATE/images.XXXXXX")
  for image in $OPERATOR_IMAGE $WORKER_IMAGE; do image_tool push -q --disable-compression "$image" "oci:$LAYOUT:$image"; done
  tar -C "$LAYOUT" -cf - . | ctr -a "$STATE/containerd.sock" -n k8s.io images import - >/dev/null
  rm -rf "$LAYOUT"
fi
