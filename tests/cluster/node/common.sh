# Shared by the scripts of the one-node cluster: fixed addresses, versions, where things are kept, how they speak.
# Sourced, never run.
HERE=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
ROOT=$(realpath "$HERE/../../..")

BRIDGE=yolastic0
GATEWAY=10.244.0.1
PODS=10.244.0.0/24
SERVICES=10.96.0.0/16
API_ADDRESS=10.96.0.1
NETWORK=yolastic-node                      # the name of the pod network in the CNI's files
# etcd, its peers, the API server, controllers, scheduler, kubelet and its health, kube-proxy's health and metrics
PORTS=(2379 2380 6443 10257 10259 10250 10248 10256 10249)
POINTER=/run/yolastic-node                 # holds the state folder of the node that is up

KUBERNETES_VERSION=$(sed -n 's#.*k8s.io/kubernetes \(v[0-9.]*\)$#\1#p' "$HERE/go.mod")
HELM=helm.sh/helm/v3/cmd/helm@v3.19.5
COREDNS=github.com/coredns/coredns@v1.12.4
BINARIES=(etcd kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet helm coredns)

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/yolastic/cluster
TOOLS_KEY=$({ cat "$HERE/go.mod" "$HERE/go.sum" "$HERE/tools.go"; echo "$HELM $COREDNS"; } | sha256sum | cut -c1-16)
BIN=$CACHE/$TOOLS_KEY/bin

CA_BUNDLE=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
BASE_SUITE=trixie
BASE_PACKAGES=python3,python3-venv,ca-certificates
BASE_KEY=$({ echo "$BASE_SUITE $BASE_PACKAGES"; cat "$CA_BUNDLE"; } | sha256sum | cut -c1-12)
BASE_IMAGE=localhost/yolastic-python:$BASE_KEY
PAUSE_IMAGE=localhost/pause:1
PAUSE_ARCHIVE=$CACHE/pause-$(sha256sum "$HERE/pause.c" | cut -c1-12).tar

say() { echo "cluster: $*"; }
die() { echo "cluster: $*" >&2; exit 1; }

# Images and layers live in the cache folder, apart from those of the host's own containers.
IMAGE_STATE=/run/yolastic-images/$(sha256sum <<<"$CACHE" | cut -c1-8)
image_tool() { buildah --root "$CACHE/storage" --runroot "$IMAGE_STATE" --storage-driver "${STORAGE_DRIVER:-overlay}" "$@"; }
