# The lab: one process tree in its own pid, mount, net, ipc and uts namespaces (sourced). Its end is the end of everything in it.
# shellcheck shell=bash disable=SC2034,SC2045,SC2154
LAB_ADDRESSES="10 11 12 20 31 32" # 10.99.0.x: infrastructure, cloud A, cloud B, store, API servers A and B
OUR_CGROUPS="/sys/fs/cgroup/*/$CGROUP-[ab]"
OUR_SYSCTLS='vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes'

lab_pid() { local p; [ -s "$LAB_RUN/pid" ] && p=$(cat "$LAB_RUN/pid") && [ -d "/proc/$p/ns" ] && live "$p" && echo "$p"; }

lab_up() {
  lab_pid >/dev/null && return
  # A lab that ended without "down" (a machine that was switched off) left pid files whose numbers mean others now.
  [ ! -e "$STATE" ] && [ ! -e "$LAB_RUN/pid" ] || lab_down
  mkdir -p "$LAB_RUN" "$STATE" "$CLOUDS"; rm -f "$LAB_RUN"/{pid,ready}
  # the kubelet sets these for the whole machine; lab_down puts them back
  # shellcheck disable=SC2086
  [ -e "$LAB_RUN/sysctl" ] || sysctl $OUR_SYSCTLS >"$LAB_RUN/sysctl" 2>/dev/null || true
  LAB_ADDRESSES=$LAB_ADDRESSES setsid unshare --pid --fork --kill-child --mount --net --ipc --uts --propagation private \
    bash -c '
      set -e
      mount -t proc proc /proc
      mkdir -p $LAB_RUN/cg; mount --rbind /sys/fs/cgroup $LAB_RUN/cg
      mount -t sysfs sysfs /sys; mount --rbind $LAB_RUN/cg /sys/fs/cgroup; umount -l $LAB_RUN/cg
      exec 7<$LAB_RUN          # the directory outside, still reachable under the tmpfs on /run
      mount -t tmpfs -o mode=755,size=64m tmpfs /run   # pid files, sockets and netns names end with the lab
      mkdir -p $LAB_RUN /run/lock
      mount -t tmpfs -o size=16g testbed-clouds $CLOUDS
      mount --make-rshared /   # what is mounted later is seen by the nodes (namespaces inside this one) too
      hostname testbed; ip link set lo up
      sysctl -qw net.ipv4.ip_forward=1
      for a in $LAB_ADDRESSES; do ip addr add 10.99.0.$a/32 dev lo; done
      touch /proc/self/fd/7/ready; exec 7<&-
      trap "exit 0" TERM; while :; do sleep infinity & wait $!; done' </dev/null >"$LAB_RUN/log" 2>&1 9>&- &
  local u=$! i
  for ((i = 0; i < 200; i++)); do [ -e "$LAB_RUN/ready" ] && break; sleep 0.05; done
  [ -e "$LAB_RUN/ready" ] || { cat "$LAB_RUN/log"; die "the lab did not start"; }
  pgrep -P $u | head -n1 >"$LAB_RUN/pid"; echo $u >"$LAB_RUN/unshare.pid"
}

# in_lab CMD...: run inside, in the same directory as outside. A caller already inside just runs it.
in_lab() {
  if [ -n "${TESTBED_INSIDE:-}" ]; then "$@"; return; fi
  local p; p=$(lab_pid) || die "the lab is down: testbed up"
  nsenter -t "$p" -m -p -n -i -u -- env TESTBED_INSIDE=1 bash -c 'cd "$1" 2>/dev/null || cd /; shift; exec "$@"' lab "$PWD" "$@"
}

# Loop devices outlive processes and mounts; once their mount namespace is gone most show "/" as their file.
lab_loops() {
  losetup -l -n -O NAME,BACK-FILE | awk -v v="$STATE/" -v shared="$(another_lab && echo 1)" \
    'index($2, v) || !shared && ($2 == "/" || $2 ~ "/volumeDevices/|/csi-cinder/") {print $1}'
}
# Seen from the end of our own: to remove a directory that another lab has mounts on takes the mounts away there.
another_lab() { pgrep -x kubelet >/dev/null; }

lab_left() { # what of the lab is still on the machine; prints nothing when clean
  local p x own
  own=$(readlink /proc/self/ns/pid)
  lab_loops | sed 's/^/loop device /'
  # shellcheck disable=SC2086
  for x in $(ls -d $OUR_CGROUPS 2>/dev/null); do echo "cgroup $x"; done
  grep -E "$STATE|$LAB_RUN" /proc/mounts | sed 's/^/mount /' || true
  ip -br link | grep -E '^(os[ab]x?(host|phy|br)|site-[ab]|brq|br-int|ovs-|tap|cni)' | sed 's/^/link /' || true
  # restic and helm of the test bed are also run outside of the lab, by other tests: those are not the lab's.
  for p in /proc/[0-9]*; do
    { grep -qsaF "$STATE" "$p/cmdline" || { [[ $(readlink "$p/exe") == "$BIN"/* ]] && [ "$(readlink "$p/ns/pid")" != "$own" ]; }; } && [ "${p#/proc/}" != $$ ] && [ -e "$p/exe" ] && echo "process ${p#/proc/} $(tr '\0' ' ' <"$p/cmdline" | cut -c1-120)"
  done
  if [ -e "$LAB_RUN/sysctl" ] && ! another_lab; then
    while IFS='= ' read -r p x; do [ "$(sysctl -n "$p" 2>/dev/null)" = "$x" ] || echo "sysctl $p is $(sysctl -n "$p"), was $x"; done <"$LAB_RUN/sysctl"
  fi
  [ ! -e "$STATE" ] || echo "directory $STATE"
  another_lab || for x in /var/lib/kubelet /var/lib/cni /var/log/pods; do [ ! -e "$x" ] || echo "directory $x"; done
}

lab_down() {
  local p u l d i t=$EPOCHREALTIME
  u=$(cat "$LAB_RUN/unshare.pid" 2>/dev/null || true)
  if p=$(lab_pid); then
    kill -9 "$p" # the kernel kills the whole tree with its first process; mounts, links and nftables rules go with it
    for ((i = 0; i < 600; i++)); do { live "$p" || { [ -n "$u" ] && live "$u"; }; } || break; sleep 0.05; done
  fi
  # the kubelet stacks a second loop device on each volume's own as a lock, hence the passes
  for i in 1 2 3 4 5; do l=$(lab_loops); [ -n "$l" ] || break; for d in $l; do losetup -d "$d" 2>/dev/null || true; done; sleep 0.1; done
  for ((i = 0; i < 100; i++)); do # a cgroup can go when its last zombie is reaped
    # shellcheck disable=SC2086
    find $OUR_CGROUPS -depth -type d -exec rmdir {} + 2>/dev/null || true
    # shellcheck disable=SC2086
    ls -d $OUR_CGROUPS >/dev/null 2>&1 || break; sleep 0.1
  done
  for ((i = 0; i < 50; i++)); do rm -rf "$STATE" 2>/dev/null && break; sleep 0.1; done
  another_lab || for d in /var/lib/kubelet /var/lib/cni /etc/cni/net.d /etc/cni /var/log/pods /var/log/containers; do rmdir "$d" 2>/dev/null || true; done
  [ ! -e "$LAB_RUN/sysctl" ] || another_lab || sysctl -qp "$LAB_RUN/sysctl" 2>/dev/null || true
  for ((i = 0; i < 30; i++)); do l=$(lab_left); [ -n "$l" ] || break; sleep 0.1; done # an "exec" that was cut off takes a moment to end
  if [ -n "$l" ]; then echo "left behind:"; echo "$l"; return 1; fi
  rm -rf "$LAB_RUN"
  say "down in $(elapsed "$t") s, nothing left behind"
}
