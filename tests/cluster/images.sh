#!/usr/bin/env bash
# Builds the project's images from its Dockerfiles and brings them into the node's containerd. Usage: images.sh [STATE_DIR]
# Without STATE_DIR it only builds. Layers are kept in the user's cache: what did not change is not made again.
set -euo pipefail
source "$(dirname "$0")/node/common.sh"
STATE=${1:-}
OPERATOR_IMAGE=localhost/yolastic-operator:test
WORKER_IMAGE=localhost/yolastic-worker:test
MAX_CACHE_MIB=10240

mkdir -p "$CACHE"
exec 9>"$CACHE/.images.lock"; flock 9
trap 'image_tool rm --all >/dev/null 2>&1 || true' EXIT   # what a failed or killed build left mounted

# The host's way to a package index of its own, if it has one, is the build's way too.
PASS=()
for name in PIP_INDEX_URL UV_DEFAULT_INDEX; do [ -z "${!name:-}" ] || PASS+=(--build-arg "$name=${!name}"); done

build() { # image, dockerfile, further arguments
  local image=$1 file=$2 log; shift 2
  log=$CACHE/${file##*/}.log
  say "$image: building from ${file##*/}"
  image_tool bud -q --layers --isolation chroot --network host --build-arg "PYTHON_IMAGE=$BASE_IMAGE" "${PASS[@]}" "$@" \
    -f "$file" -t "$image" "$ROOT" >"$log" 2>&1 9>&- || { tail -n 20 "$log" >&2; die "$image could not be built, see $log"; }
}

into_node() { # image
  local archive; archive=$(mktemp -u "$STATE/containerd/image.XXXXXX")
  image_tool push -q "$1" "docker-archive:$archive:$1"   # unpacked again at once, so not compressed
  ctr -a "$STATE/containerd.sock" -n k8s.io images import "$archive" >/dev/null
  rm "$archive"
}

if [ "$(du -sm "$CACHE/storage" | cut -f1)" -gt $MAX_CACHE_MIB ]; then
  say "images: the cache has grown beyond $MAX_CACHE_MIB MiB; dropping the layers of earlier builds"
  image_tool rmi --prune >/dev/null
fi
build $OPERATOR_IMAGE "$ROOT/Dockerfile.operator"
build $WORKER_IMAGE "$ROOT/Dockerfile.worker" --target cpu
if [ -n "$STATE" ]; then
  say "images: bringing them into the node"
  into_node $OPERATOR_IMAGE
  into_node $WORKER_IMAGE
fi
