#!/bin/bash
# Makes the databases of one cloud: databases.sh a|b. The schemas of a release are synced once, dumped, and loaded for each cloud (a sync per cloud
# costs minutes of CPU).
set -euo pipefail
. "$(dirname "$0")/env.sh"; cloud_env "$1"
SQL="mysql --socket=$CLOUDS/infra/run/mysql.sock"
DBS="keystone glance placement nova_api nova nova_cell0 neutron cinder"
DUMP=$CLOUDS/infra/schema-$RELEASE.sql.gz
if [ ! -s $DUMP ]; then
  T=$CLOUDS/template; rm -rf $T; mkdir -p $T/log
  for d in $DBS; do $SQL -e "DROP DATABASE IF EXISTS os${C}_$d; CREATE DATABASE os${C}_$d CHARACTER SET utf8mb3"; done
  tm() { local n=$1; shift; local s; s=$(date +%s.%N); "$@" >$T/log/$n.log 2>&1 || { echo "$n FAILED"; tail -5 $T/log/$n.log; exit 1; }; printf 'db sync %-10s %5.1f s\n' $n $(echo "$(date +%s.%N)-$s"|bc); }
  # two lanes for two cores
  ( tm neutron neutron-db-manage --config-file $ETC/neutron/neutron.conf --config-file $ETC/neutron/ml2_conf.ini upgrade heads
    tm keystone keystone-manage --config-file $ETC/keystone/keystone.conf db_sync
    # the admin user, its project and the roles too; regions and endpoints come per cloud (catalog.py)
    tm ks-bootstr keystone-manage --config-file $ETC/keystone/keystone.conf bootstrap --bootstrap-password $SVCPW
    tm placement placement-manage --config-file $ETC/placement/placement.conf db sync ) & l1=$!
  ( tm nova_api nova-manage --config-file $ETC/nova/nova.conf api_db sync
    # cell0 mapping must exist for 'db sync' to do cell0 too; sync it directly instead
    tm nova nova-manage --config-file $ETC/nova/nova.conf db sync --local_cell
    tm cinder cinder-manage --config-file $ETC/cinder/cinder.conf db sync
    tm glance glance-manage --config-file $ETC/glance/glance-api.conf db_sync ) & l2=$!
  wait $l1; wait $l2
  for d in $DBS; do
    s=$d; [ $d = nova_cell0 ] && s=nova
    echo "-- DB $d"; mysqldump --socket=$CLOUDS/infra/run/mysql.sock --skip-comments os${C}_$s; done | gzip -1 > $DUMP.tmp; mv $DUMP.tmp $DUMP
fi
zcat $DUMP | awk -v c=$C '/^-- DB /{print "DROP DATABASE IF EXISTS os" c "_" $3 "; CREATE DATABASE os" c "_" $3 " CHARACTER SET utf8mb3; USE os" c "_" $3 ";"; next} {print}' | $SQL
# what "nova-manage cell_v2 map_cell0 / create_cell" would write (each costs 3-4 s of CPU)
my() { echo "mysql+pymysql://os:$SVCPW@$INFRA_IP:3306/os${C}_$1?charset=utf8"; }
$SQL os${C}_nova_api -e "INSERT INTO cell_mappings (created_at,uuid,name,transport_url,database_connection,disabled) VALUES
 (NOW(),'00000000-0000-0000-0000-000000000000','cell0','none:///','$(my nova_cell0)',0),
 (NOW(),UUID(),'cell1','rabbit://ostack:$SVCPW@$INFRA_IP:5672/os$C','$(my nova)',0)"
say "cloud $C databases ready"
