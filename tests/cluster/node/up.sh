#!/usr/bin/env bash
# Starts a real one-node Kubernetes on this host: etcd, API server, controllers, scheduler, kubelet on containerd, kube-proxy,
# CoreDNS. Needs root and what build.sh made. Usage: up.sh STATE_DIR [GPUS] [OWNER_PID]
# With OWNER_PID the node goes when that process has gone, however it went. Prints the kubeconfig's path.
set -euo pipefail
source "$(dirname "$0")/common.sh"
STATE=$(realpath -m "${1:?a folder for the state}") GPUS=${2:-2} OWNER=${3:-}
MAX_SOCKET_PATH=80   # a Unix socket's address holds 108 bytes, and containerd appends to it

refuse_if_taken() {
  local old port
  if [ -e $POINTER ]; then
    old=$(<$POINTER)
    if [ -s "$old/pid/owner" ] && ! kill -0 "$(<"$old/pid/owner")" 2>/dev/null; then
      "$HERE/down.sh"   # its owner died with it up
    else
      die "a node is up already in $old; stop it with tests/cluster/node/down.sh"
    fi
  fi
  for port in "${PORTS[@]}"; do
    [ -z "$(ss -Hltn "sport = :$port")" ] || die "port $port is taken on this host, and the node needs it"
  done
  ip link show $BRIDGE >/dev/null 2>&1 && die "there is a network link $BRIDGE already, and nothing says whose it is"
  [ -z "$(ip -4 route show root $PODS; ip -4 route show root $SERVICES)" ] ||
    die "$PODS or $SERVICES is routed elsewhere on this host, and the node's pods and services need them"
  iptables-save 2>/dev/null | grep -e '^:KUBE-' -e '^:CNI-' >/dev/null && die "this host has firewall rules of another Kubernetes"
  [ -x "$BIN/kubelet" ] || die "not built yet: run tests/cluster/node/build.sh"
  [ -z "$(ls -A "$STATE" 2>/dev/null)" ] || die "the state folder is not empty: $STATE"
  [ ${#STATE} -le $MAX_SOCKET_PATH ] || die "the path of the state folder is too long for a socket: $STATE"
}

start() { local name=$1; shift; setsid "$@" >"log/$name.log" 2>&1 </dev/null & echo $! >"pid/$name"; }

await() { # what, log, command...
  local what=$1 log=$2; shift 2
  for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
  tail -n 5 "log/$log.log" >&2
  die "$what did not come up in 30 s"
}

# What the node's programs change on the host is noted, and put back by down.sh.
note_host() {
  local key
  for key in net.ipv4.ip_forward net.ipv4.conf.all.route_localnet net.bridge.bridge-nf-call-iptables vm.overcommit_memory \
      vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes; do
    sysctl -e "$key" 2>/dev/null
  done | sed 's/ = /=/' >host.sysctl
  ls /var/run/netns 2>/dev/null >host.netns || true
  for key in /var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers /run/containerd /etc/cni /usr/libexec/kubernetes; do
    [ -e "$key" ] || echo "$key"
  done >host.absent
}

# The bridge exists before the first pod: the API server advertises its address. Its hardware address is given: else it is the lowest
# of its pods' and changes as they come and go, and a pod that knows the old one loses what it sends for up to a minute, DNS first.
network() {
  modprobe -q br_netfilter 2>/dev/null || true   # built in or not needed where this fails
  ip link add $BRIDGE address "$(printf '02:00:%02x:%02x:%02x:%02x' ${GATEWAY//./ })" type bridge
  ip addr add $GATEWAY/24 dev $BRIDGE
  ip link set $BRIDGE up
  sysctl -qw net.ipv4.ip_forward=1
  sysctl -qew net.bridge.bridge-nf-call-iptables=1 || true
  cat >cni/10-bridge.conflist <<C
{"cniVersion":"0.4.0","name":"$NETWORK","plugins":[
 {"type":"bridge","bridge":"$BRIDGE","isGateway":true,"ipMasq":true,"hairpinMode":true,
  "ipam":{"type":"host-local","dataDir":"$STATE/ipam","ranges":[[{"subnet":"$PODS"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
C
}

cert() { # name subject
  openssl req -newkey rsa:2048 -nodes -keyout "pki/$1.key" -out "pki/$1.csr" -subj "$2" 2>/dev/null
  openssl x509 -req -in "pki/$1.csr" -CA pki/ca.crt -CAkey pki/ca.key -set_serial "0x$(openssl rand -hex 8)" -out "pki/$1.crt" \
    -days 30 -extfile pki/names 2>/dev/null
}

kubeconfig() { # name
  cat >"$1.kubeconfig" <<K
apiVersion: v1
kind: Config
clusters: [{name: one-node, cluster: {server: "https://127.0.0.1:6443", certificate-authority: $STATE/pki/ca.crt}}]
users: [{name: $1, user: {client-certificate: $STATE/pki/$1.crt, client-key: $STATE/pki/$1.key}}]
contexts: [{name: one-node, context: {cluster: one-node, user: $1}}]
current-context: one-node
K
}

identities() {
  local names=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
  # Python >= 3.13 refuses a CA without keyUsage.
  openssl req -x509 -newkey rsa:2048 -nodes -keyout pki/ca.key -out pki/ca.crt -days 30 -subj /CN=one-node-ca \
    -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
  printf 'subjectAltName=%s,IP:127.0.0.1,IP:%s,IP:%s\nauthorityKeyIdentifier=keyid\n' $names $API_ADDRESS $GATEWAY >pki/names
  cert server /CN=kube-apiserver
  cert admin /O=system:masters/CN=admin;                 kubeconfig admin
  cert controllers /CN=system:kube-controller-manager;   kubeconfig controllers
  cert scheduler /CN=system:kube-scheduler;              kubeconfig scheduler
  cert proxy /CN=system:kube-proxy;                      kubeconfig proxy
  cert node /O=system:nodes/CN=system:node:node1;        kubeconfig node
  openssl genrsa -out pki/sa.key 2048 2>/dev/null
  openssl rsa -in pki/sa.key -pubout -out pki/sa.pub 2>/dev/null
}

runtime() {
  # Unpacked images are many small files: in memory, where there is plenty, they come and go in no time.
  mkdir containerd
  if [ "$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo)" -gt $((8 * 1024 * 1024)) ]; then
    mount -t tmpfs -o size=4g,mode=0711 yolastic-node containerd
  fi
  cat >containerd.toml <<C
version = 2
root = "$STATE/containerd/root"
state = "$STATE/containerd/state"
[grpc]
  address = "$STATE/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$STATE/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  # A host that may not lower oom_score_adj (most VMs and containers) cannot start a sandbox without this.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$STATE/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
C
  start containerd containerd -c containerd.toml
}

control_plane() {
  # What service accounts other than Kubernetes' own ask for is written down: a role can be held against it.
  cat >audit.yaml <<C
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- {level: None, userGroups: ["system:serviceaccounts:kube-system"]}
- {level: Metadata, userGroups: ["system:serviceaccounts"]}
- {level: None}
C
  start etcd "$BIN/etcd" --data-dir "$STATE/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
  start apiserver "$BIN/kube-apiserver" --etcd-servers http://127.0.0.1:2379 --secure-port 6443 --advertise-address $GATEWAY \
    --service-cluster-ip-range $SERVICES --tls-cert-file pki/server.crt --tls-private-key-file pki/server.key \
    --client-ca-file pki/ca.crt --authorization-mode Node,RBAC --allow-privileged=true \
    --service-account-key-file pki/sa.pub --service-account-signing-key-file pki/sa.key \
    --service-account-issuer https://kubernetes.default.svc --kubelet-preferred-address-types InternalIP \
    --kubelet-client-certificate pki/admin.crt --kubelet-client-key pki/admin.key \
    --audit-policy-file audit.yaml --audit-log-path log/audit.log
  await "the API server" apiserver "${KUBECTL[@]}" get --raw /readyz
  start controllers "$BIN/kube-controller-manager" --kubeconfig controllers.kubeconfig --authentication-kubeconfig controllers.kubeconfig \
    --authorization-kubeconfig controllers.kubeconfig --service-account-private-key-file pki/sa.key --root-ca-file pki/ca.crt \
    --use-service-account-credentials --leader-elect=false --cert-dir pki --pvclaimbinder-sync-period=1s
  start scheduler "$BIN/kube-scheduler" --kubeconfig scheduler.kubeconfig --authentication-kubeconfig scheduler.kubeconfig \
    --authorization-kubeconfig scheduler.kubeconfig --leader-elect=false --cert-dir pki
}

node() {
  cat >kubelet.yaml <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://$STATE/containerd.sock
podLogsDir: $STATE/pod-logs
volumePluginDir: $STATE/volume-plugins
authentication: {anonymous: {enabled: false}, x509: {clientCAFile: $STATE/pki/ca.crt}, webhook: {enabled: true}}
authorization: {mode: Webhook}
evictionHard: {memory.available: 100Mi}
imageGCHighThresholdPercent: 100   # a full disk is no reason to lose images that no registry has
imageGCLowThresholdPercent: 99
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
clusterDomain: cluster.local
clusterDNS: [$GATEWAY]
resolvConf: $STATE/resolv.conf   # the host's search domains are not the pods'
C
  echo "nameserver $GATEWAY" >resolv.conf
  start kubelet "$BIN/kubelet" --config kubelet.yaml --kubeconfig node.kubeconfig --hostname-override node1 --root-dir "$STATE/kubelet"
  # Zero leaves the host's connection tracking as it is.
  start proxy "$BIN/kube-proxy" --kubeconfig proxy.kubeconfig --hostname-override node1 --cluster-cidr $PODS --proxy-mode iptables \
    --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0 --conntrack-tcp-timeout-close-wait 0
  # Names outside the cluster do not exist: nothing that runs on the node can reach anybody by mistake.
  cat >Corefile <<C
cluster.local:53 {
    bind $GATEWAY
    kubernetes cluster.local {
      kubeconfig $STATE/admin.kubeconfig one-node
    }
}
.:53 {
    bind $GATEWAY
    template ANY ANY {
      rcode NXDOMAIN
    }
}
C
  start coredns "$BIN/coredns" -conf Corefile
  ctr -a "$STATE/containerd.sock" -n k8s.io images import "$PAUSE_ARCHIVE" >/dev/null
  await "the node" kubelet "${KUBECTL[@]}" wait --for=condition=Ready node/node1 --timeout=1s
  await "the default service account" controllers "${KUBECTL[@]}" get serviceaccount default
  # Emulated GPUs: an extended resource on the node's status; the scheduler then treats them like real ones.
  "${KUBECTL[@]}" patch node node1 --subresource=status --type=json -p \
    "[{\"op\":\"add\",\"path\":\"/status/capacity/nvidia.com~1gpu\",\"value\":\"$GPUS\"},{\"op\":\"add\",\"path\":\"/status/allocatable/nvidia.com~1gpu\",\"value\":\"$GPUS\"}]" >/dev/null
}

[ "$(id -u)" = 0 ] || die "a node needs root"
refuse_if_taken
mkdir -p "$STATE"/{pki,log,pid,cni}
cd "$STATE"
[ -z "$OWNER" ] || echo "$OWNER" >pid/owner
echo "$STATE" >$POINTER
trap '"$HERE/down.sh"' EXIT   # until the node is Ready, whatever goes wrong takes down what was started
trap 'exit 1' HUP INT TERM
KUBECTL=("$BIN/kubectl" --kubeconfig "$STATE/admin.kubeconfig")
note_host
network
runtime
identities
control_plane
node
if [ -n "$OWNER" ]; then
  start watch bash -c 'tail --pid="$1" -f /dev/null; exec "$2/down.sh"' watch "$OWNER" "$HERE"
fi
trap - EXIT HUP INT TERM
echo "$STATE/admin.kubeconfig"
