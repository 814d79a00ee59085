#!/usr/bin/env bash
# Makes all that the one-node cluster needs: Debian packages, Kubernetes from its Go modules, the pause image and a Python
# base image. Everything is kept in the user's cache; what is there already is not made again. Needs root and Go >= 1.24.
set -euo pipefail
source "$(dirname "$0")/common.sh"

packages() {
  local missing=() pair
  for pair in containerd:containerd runc:runc buildah:buildah debootstrap:debootstrap iptables:iptables conntrack:conntrack \
      socat:socat prometheus:prometheus openssl:openssl ip:iproute2 gcc:gcc; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  [ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
  [ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
  [ ${#missing[@]} -gt 0 ] || { say "Debian packages: there"; return; }
  command -v apt-get >/dev/null || die "these are missing and there is no apt-get to install them: ${missing[*]}"
  say "Debian packages: installing ${missing[*]}"
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
  } >"$CACHE/apt.log" 2>&1 || { tail -n 5 "$CACHE/apt.log" >&2; die "apt-get failed, see $CACHE/apt.log"; }
}

binaries() {
  if [ -d "$BIN" ]; then say "Kubernetes $KUBERNETES_VERSION, etcd, helm, CoreDNS: there"; return; fi
  local made minor
  made=$(mktemp -d "$CACHE/making.XXXXXX"); mkdir "$made/bin"
  minor=${KUBERNETES_VERSION#v1.}; minor=${minor%%.*}
  say "Kubernetes $KUBERNETES_VERSION and etcd: compiling (about 8 minutes on two cores, once)"
  local version=k8s.io/component-base/version
  (cd "$HERE" && CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -o "$made/bin/" \
    -ldflags "-s -w -X $version.gitVersion=$KUBERNETES_VERSION -X $version.gitMajor=1 -X $version.gitMinor=$minor" \
    $(sed -n 's/^\t_ "\(.*\)"$/\1/p' tools.go))
  mv "$made/bin/server" "$made/bin/etcd"
  say "helm and CoreDNS: compiling (about 5 minutes, once)"
  GOBIN=$made/bin CGO_ENABLED=0 go install -trimpath -ldflags "-s -w" "$HELM"
  GOBIN=$made/bin CGO_ENABLED=0 go install -trimpath -ldflags "-s -w" "$COREDNS"
  local name
  for name in "${BINARIES[@]}"; do [ -x "$made/bin/$name" ] || die "the build did not make $name"; done
  mv "$made" "$CACHE/$TOOLS_KEY"   # only a finished build gets its final name
}

pause_image() {
  if [ -e "$PAUSE_ARCHIVE" ]; then say "pause image: there"; return; fi
  say "pause image: making it"
  local work container; work=$(mktemp -d "$CACHE/making.XXXXXX")
  gcc -O2 -static -o "$work/pause" "$HERE/pause.c"
  container=$(image_tool from scratch)
  image_tool add -q "$container" "$work/pause" /pause >/dev/null
  image_tool config --entrypoint '["/pause"]' --user 65535:65535 "$container"
  image_tool commit -q --rm "$container" $PAUSE_IMAGE >/dev/null
  image_tool push -q $PAUSE_IMAGE "oci-archive:$work/pause.tar:$PAUSE_IMAGE"
  mv "$work/pause.tar" "$PAUSE_ARCHIVE"
  rm -rf "$work"
}

base_image() {
  if image_tool inspect --type image "$BASE_IMAGE" >/dev/null 2>&1; then say "Python base image: there"; return; fi
  say "Python base image: Debian $BASE_SUITE by debootstrap (about 90 seconds, once)"
  local work container; work=$(mktemp -d "$CACHE/making.XXXXXX")
  debootstrap --variant=minbase --include="$BASE_PACKAGES" "$BASE_SUITE" "$work/system" >"$CACHE/debootstrap.log" 2>&1 ||
    { tail -n 5 "$CACHE/debootstrap.log" >&2; die "debootstrap failed, see $CACHE/debootstrap.log"; }
  # What this host trusts, the image trusts: package indexes are reached the same way from both.
  cp "$CA_BUNDLE" "$work/system/etc/ssl/certs/ca-certificates.crt"
  rm -rf "$work"/system/var/cache/apt/archives/*.deb "$work"/system/var/lib/apt/lists/* "$work"/system/usr/share/{doc,man,locale}
  container=$(image_tool from scratch)
  image_tool add -q "$container" "$work/system" / >/dev/null
  image_tool config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --env LANG=C.UTF-8 "$container"
  image_tool commit -q --rm "$container" "$BASE_IMAGE" >/dev/null
  rm -rf "$work"
}

[ "$(id -u)" = 0 ] || die "a node needs root"
mkdir -p "$CACHE"
exec 9>"$CACHE/.lock"; flock 9   # two builds at once would do the same work twice
rm -rf "$CACHE"/making.*         # left by a build that was killed
packages
binaries
pause_image
base_image
