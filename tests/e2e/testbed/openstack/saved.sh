#!/bin/bash
# Keeps two initialised clouds (databases with catalog, tenants, networks, images; keys) for the next start.
# saved.sh save | restore | key     The archive's name carries a hash of the scripts and package versions: a change makes a new one.
set -euo pipefail
. "$(dirname "$0")/env.sh"; I=$CLOUDS/infra
key() { { cat "$TB"/openstack/{saved.sh,infra.sh,config.sh,databases.sh,catalog.py,tenant.py} "$TB/lib/certificate.sh" "$CACHE"/pki/{ca.pem,id_ed25519.pub} "$CACHE/guest/guest.qcow2"
  echo $CLOUDS $INFRA_IP $SVCPW; for c in a b; do cloud_vars $c; echo $IP $BE $NET $EXT $REGION $SCHEME; cat "$TB/openstack/releases/$RELEASE.sh"; [ ! -e "$TB/install/openstack-$RELEASE.txt" ] || cat "$TB/install/openstack-$RELEASE.txt"; done
  dpkg-query -W -f '${Package} ${Version}\n' mariadb-server rabbitmq-server keystone glance-api placement-api nova-api neutron-server cinder-api; } | sha256sum | cut -c1-16; }
F=$CACHE/clouds/saved-$(key).tar.zst; mkdir -p $CACHE/clouds
case ${1:-} in
restore) [ -s $F ] || exit 1
  zstd -dcq $F | tar -xC $CLOUDS ;;
save)
  # a frozen copy of the databases is what a crash would leave; a private server recovers it, and forgets who was alive
  S=$CLOUDS/save; rm -rf $S; mkdir -p $S/mysql; p=$(cat $I/run/mysql.pid)
  kill -STOP $p; cp -a --sparse=always $I/mysql/. $S/mysql/ || { kill -CONT $p; exit 1; }; kill -CONT $p
  mariadbd --no-defaults --user=root --datadir=$S/mysql --socket=$S/s.sock --pid-file=$S/pid --skip-networking --performance-schema=OFF \
    --innodb-doublewrite=0 --innodb-log-file-size=64M --character-set-server=utf8mb3 --log-error=$S/log </dev/null >/dev/null 2>&1 & m=$!
  wait_for $PATIENCE mysqladmin --socket=$S/s.sock ping
  for c in a b; do mysql --socket=$S/s.sock -e "UPDATE os${c}_nova.services SET last_seen_up='2020-01-01', updated_at='2020-01-01';
    UPDATE os${c}_cinder.services SET updated_at='2020-01-01'; UPDATE os${c}_neutron.agents SET heartbeat_timestamp='2020-01-01';"; done
  kill $m; wait $m || true
  # compute_id: a newer Nova starts on a host that it knows only with the identity it had
  mkdir -p $S/t/infra; mv $S/mysql $S/t/infra/
  (cd $CLOUDS; tar --exclude='*/log' --exclude='*/run' --exclude='*/lock/*' --exclude='nova/mnt/*' --exclude='cinder/mnt/*' -cS \
    $(for c in a b; do ls -d $c/{fernet,credential,glance,haproxy,tenant.json,share}; [ ! -e $c/nova/compute_id ] || echo $c/nova/compute_id; done) -C $S/t infra) | zstd -1 -T2 -q > $F.tmp
  mv $F.tmp $F; ls -t $CACHE/clouds/saved-*.tar.zst | tail -n +3 | xargs -r rm -f; rm -rf $S; ls -la --block-size=M $F | awk '{print "saved", $5, $9}'
  # what the services imported, for the fork servers of the next start
  for f in $I/forkservers/*/*.preload.new; do
    [ -s $f ] || continue
    p=$CACHE/preload/${f#"$I/forkservers/"}; mkdir -p "${p%/*}"; awk '!s[$0]++' $f > "${p%.new}"; done ;;
key) key ;;
*) sed -n 2,3p "$0"; exit 2 ;;
esac
