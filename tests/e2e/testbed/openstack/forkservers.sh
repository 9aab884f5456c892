#!/bin/bash
# Starts the fork servers (forkserver.py), one per project, shared by both clouds. They import in the background while MariaDB and
# RabbitMQ start; services.sh waits for them. TESTBED_FORKSERVERS=0: none, every service is started by its package's command.
set -euo pipefail
. "$(dirname "$0")/env.sh"; [ "${TESTBED_FORKSERVERS:-1}" = 1 ] || exit 0
Z=$CLOUDS/infra/forkservers; mkdir -p $Z $CLOUDS/bin $CACHE/preload
for p in nova neutron cinder glance privsep-neutron privsep-nova; do
  live_f $Z/$p.pid && continue
  rm -f $Z/$p.ready; [ -e $Z/$p.preload ] || cp $CACHE/preload/$p.preload $Z/ 2>/dev/null || true
  setsid /usr/bin/python3 "$TB/openstack/forkserver.py" $p $Z </dev/null >>$Z/$p.log 2>&1 & echo $! > $Z/$p.pid
done
# oslo.privsep's helpers (two or three per agent) are forked from there too
cat > $CLOUDS/bin/privsep-helper <<S
#!/bin/bash
case "\$*" in */etc/nova/*) p=privsep-nova ;; */etc/neutron/*) p=privsep-neutron ;; *) p=none ;; esac
[ -e $Z/\$p.ready ] || exec /usr/bin/privsep-helper "\$@"
r=$Z/reply.\$\$; mkfifo \$r; a=\$(printf ', "%s"' "\$@")
echo "{\"main\": \"oslo_privsep.daemon:helper_main\", \"argv\": [\"privsep-helper\"\$a], \"env\": {\"PATH\": \"\$PATH\"}, \"out\": \"$Z/privsep.log\", \"reply\": \"\$r\"}" > $Z/\$p.fifo
read rc < \$r; rm -f \$r; exit \$rc
S
chmod 755 $CLOUDS/bin/privsep-helper
