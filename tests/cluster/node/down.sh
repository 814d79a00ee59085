#!/usr/bin/env bash
# Stops the one-node cluster that up.sh started, and removes its mounts, links, rules and files. Safe to call at any time and twice.
# Usage: down.sh [OWNER_PID]; with OWNER_PID only the node of that process. All state is thrown away, so nothing is asked to end politely.
set -uo pipefail
source "$(dirname "$0")/common.sh"
mkdir -p "$CACHE"; exec 8>"$CACHE/.down.lock"; flock 8   # the owner's end and a trap may both call this
[ -e $POINTER ] || exit 0
STATE=$(<$POINTER)
OWNER=${1:-}
[ -z "$OWNER" ] || [ "$OWNER" = "$(cat "$STATE/pid/owner" 2>/dev/null)" ] || exit 0
case "$STATE" in /?*) ;; *) die "$POINTER does not name a folder" ;; esac

started() { local pid; pid=$(cat "$STATE/pid/$1" 2>/dev/null) && [ "$pid" != $$ ] && kill -0 "$pid" 2>/dev/null && echo "$pid"; }
end() { # signal, names
  local signal=$1 pids=() name pid; shift
  for name in "$@"; do pid=$(started "$name") && pids+=("$pid"); done
  [ ${#pids[@]} -gt 0 ] || return 0
  kill "-$signal" "${pids[@]}" 2>/dev/null
  for _ in $(seq 100); do kill -0 "${pids[@]}" 2>/dev/null || return 0; sleep 0.1; done
  kill -KILL "${pids[@]}" 2>/dev/null
}

pid=$(started watch) && kill -KILL -- "-$pid"   # with the process it waits in
end KILL prometheus controllers scheduler kubelet proxy coredns apiserver etcd
if started containerd >/dev/null; then
  tasks() { timeout 10 ctr -a "$STATE/containerd.sock" -n k8s.io tasks "$@"; }
  tasks ls -q 2>/dev/null | xargs -r -P 8 -I{} timeout 10 ctr -a "$STATE/containerd.sock" -n k8s.io tasks rm -f {} >/dev/null 2>&1
  end TERM containerd
fi
# A shim that lost its containerd knows its address by the state folder.
for cmdline in /proc/[0-9]*/cmdline; do
  pid=${cmdline#/proc/}; pid=${pid%/cmdline}
  line=$(tr '\0' ' ' 2>/dev/null <"$cmdline")
  case "$line" in *containerd-shim*"$STATE/"*) kill -KILL "$pid" 2>/dev/null ;; esac
done
find /sys/fs/cgroup -path '*/kubepods*' -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | xargs -r kill -KILL 2>/dev/null
awk -v s="$STATE/" 'index($2, s) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount -l
for space in /var/run/netns/cni-*; do
  [ -e "$space" ] && ! grep -qxF "${space##*/}" "$STATE/host.netns" 2>/dev/null && ip netns del "${space##*/}"
done
ip link del $BRIDGE 2>/dev/null   # the pods' ends went with their network namespaces
# up.sh refused a host that had any of these, so all of them are ours.
for family in iptables ip6tables; do
  if "$family-save" 2>/dev/null | grep -e KUBE- -e CNI- >/dev/null; then   # grep -q would end the pipe early
    "$family-save" | grep -v -e KUBE- -e CNI- | "$family-restore"
  fi
done
conntrack -D -d $SERVICES >/dev/null 2>&1
conntrack -D -s $PODS >/dev/null 2>&1
find /sys/fs/cgroup -depth -type d -path '*/kubepods*' -exec rmdir {} + 2>/dev/null
find -L /var/log/containers -maxdepth 1 -type l -delete 2>/dev/null   # its links point into the state folder
rm -f /var/lib/cni/results/$NETWORK-* 2>/dev/null
[ -e "$STATE/host.sysctl" ] && sysctl -qe -p "$STATE/host.sysctl" 2>/dev/null
while read -r path; do rm -rf "$path"; done < <(cat "$STATE/host.absent" 2>/dev/null)
# Through a mount that would not go, the files of a host folder would be deleted.
grep -q " $STATE/" /proc/mounts && die "something is still mounted in $STATE"
rm -rf "$STATE"
rm -f $POINTER
