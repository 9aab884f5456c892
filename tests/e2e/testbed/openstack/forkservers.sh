#!/bin/bash
# Starts the fork servers (forkserver.py), one per release and project. They import in the background while MariaDB and
# RabbitMQ start; services.sh waits for them. TESTBED_FORKSERVERS=0: none, every service is started by its package's command.
set -euo pipefail
. "$(dirname "$0")/env.sh"; [ "${TESTBED_FORKSERVERS:-1}" = 1 ] || exit 0
server() { # PROJECT MODULE...
  local p=$1; shift
  live_f "$FORKSERVERS/$p.pid" && return
  rm -f "$FORKSERVERS/$p.ready"; [ -e "$FORKSERVERS/$p.preload" ] || cp "$CACHE/preload/$RELEASE/$p.preload" "$FORKSERVERS/" 2>/dev/null || true
  setsid "$PYTHON" "$TB/openstack/forkserver.py" "$p" "$FORKSERVERS" "$@" </dev/null >>"$FORKSERVERS/$p.log" 2>&1 & echo $! >"$FORKSERVERS/$p.pid"
}
# oslo.privsep's helpers (two or three per agent) are forked from there too
privsep_helper() {
  cat <<S
#!/bin/bash
case "\$*" in */etc/nova/*) p=privsep-nova ;; */etc/neutron/*) p=privsep-neutron ;; *) p=none ;; esac
[ -e $FORKSERVERS/\$p.ready ] || exec $BINARIES/privsep-helper "\$@"
r=$FORKSERVERS/reply.\$\$; mkfifo \$r; a=\$(printf ', "%s"' "\$@")
echo "{\"main\": \"oslo_privsep.daemon:helper_main\", \"argv\": [\"privsep-helper\"\$a], \"env\": {\"PATH\": \"\$PATH\"}, \"out\": \"$FORKSERVERS/privsep.log\", \"reply\": \"\$r\"}" > $FORKSERVERS/\$p.fifo
read rc < \$r; rm -f \$r; exit \$rc
S
}
started=
for c in a b; do
  cloud_env $c
  [ "$RELEASE" != "$started" ] || continue
  started=$RELEASE; mkdir -p "$FORKSERVERS/bin"
  privsep_helper >"$FORKSERVERS/bin/privsep-helper"; chmod 755 "$FORKSERVERS/bin/privsep-helper"
  for p in $(forked_projects); do
    # shellcheck disable=SC2046
    server "$p" $(awk -v p="$p" '$3 == "fork" && $4 == p {sub(":.*", "", $6); print $6}' <<<"$PROGRAMS" | sort -u)
  done
  # shellcheck disable=SC2086
  server privsep-neutron oslo_privsep.daemon $PRIVSEP_NEUTRON
  # shellcheck disable=SC2086
  server privsep-nova oslo_privsep.daemon $PRIVSEP_NOVA
done
