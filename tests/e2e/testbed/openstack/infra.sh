#!/bin/bash
# What both clouds share: shims, MariaDB, RabbitMQ, virtlogd, libvirtd and Open vSwitch. Idempotent. MariaDB starts on a saved state if saved.sh unpacked one.
set -euo pipefail
. "$(dirname "$0")/env.sh"
I=$CLOUDS/infra; mkdir -p $I/{rabbit,log,run,libvirt} $CLOUDS/bin
# --- shims, first in PATH of every service (nothing is written outside $CLOUDS)
cd $CLOUDS/bin
printf '#!/bin/sh\n[ "$1" = -n ] && shift\nexec "$@"\n' > sudo                                # root already
for p in cinder nova neutron; do printf '#!/bin/sh\nshift\nexec "$@"\n' > $p-rootwrap; done   # skip the slow python rootwrap
# the linuxbridge agent's ARP protection: "ebtables -D ... --among-src" of iptables-nft 1.8.9 fails with exit 4, and neutron
# retries that for ever with doubling waits, deaf to every other port meanwhile -> no ARP protection at all
printf '#!/bin/sh\nexit 0\n' > ebtables
cat > mount <<'S'
#!/bin/sh
# stands in for the NFS client: "mount -t nfs host:/path dir" is a bind mount of a directory of this machine
[ "$1" = -t ] && [ "$2" = nfs ] || exec /bin/mount "$@"
shift 2; [ "$1" = -o ] && shift 2
exec /bin/mount --bind "${1#*:}" "$2"
S
printf '#!/bin/sh\nexit 1\n' > mount.nfs      # cinder only asks whether it exists
chmod 755 *; cd /
# --- MariaDB
if ! live_f $I/run/mysql.pid; then
  [ -d $I/mysql/mysql ] || mariadb-install-db --no-defaults --user=root --datadir=$I/mysql --auth-root-authentication-method=normal --skip-test-db >$I/log/mysql-install.log 2>&1
  setsid mariadbd --no-defaults --user=root --datadir=$I/mysql --socket=$I/run/mysql.sock --pid-file=$I/run/mysql.pid \
    --bind-address=$INFRA_IP --port=3306 --max-connections=2000 --skip-log-bin --skip-name-resolve --performance-schema=OFF \
    --innodb-buffer-pool-size=256M --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 --innodb-log-file-size=64M \
    --innodb-flush-method=fsync --character-set-server=utf8mb3 --log-error=$I/log/mysql.log </dev/null >/dev/null 2>&1 &
fi
# --- RabbitMQ
if ! pgrep -x beam.smp >/dev/null; then
  cat > $I/rabbit/definitions.json <<S
{"users":[{"name":"ostack","password":"$SVCPW","tags":"administrator"}],
 "vhosts":[{"name":"osa"},{"name":"osb"}],
 "permissions":[{"user":"ostack","vhost":"osa","configure":".*","write":".*","read":".*"},{"user":"ostack","vhost":"osb","configure":".*","write":".*","read":".*"}]}
S
  cat > $I/rabbit/rabbitmq.conf <<S
listeners.tcp.default = $INFRA_IP:5672
load_definitions = $I/rabbit/definitions.json
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
log.console = false
heartbeat = 60
S
  echo '[].' > $I/rabbit/enabled_plugins
  env HOME=$I/rabbit RABBITMQ_NODENAME=ostack@localhost RABBITMQ_CONFIG_FILE=$I/rabbit/rabbitmq \
    RABBITMQ_MNESIA_BASE=$I/rabbit/mnesia RABBITMQ_LOG_BASE=$I/log RABBITMQ_ENABLED_PLUGINS_FILE=$I/rabbit/enabled_plugins \
    RABBITMQ_PID_FILE=$I/run/rabbit.pid RABBITMQ_DIST_PORT=25679 ERL_EPMD_PORT=4379 ERL_EPMD_ADDRESS=127.0.0.1 \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}" \
    setsid /usr/lib/rabbitmq/bin/rabbitmq-server </dev/null >$I/log/rabbit.out 2>&1 &
fi
# --- libvirt (one daemon for both clouds; qemu as root, no cgroups, no security driver, no mount namespaces)
if ! live_f $I/run/libvirtd.pid; then
  # the lab's own copy of libvirt's directories; its cache of QEMU's capabilities stays outside
  mountpoint -q /etc/libvirt || { cp -a /etc/libvirt/. $I/libvirt/; mount --bind $I/libvirt /etc/libvirt; }
  for d in /var/lib/libvirt /var/log/libvirt; do mountpoint -q $d || mount -t tmpfs -o mode=755 oslibvirt $d; done
  mkdir -p /run/libvirt
  cat > /etc/libvirt/qemu.conf <<S
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
max_core = 0
S
  mkdir -p /etc/libvirt/hooks; cat > /etc/libvirt/hooks/qemu <<S
#!/bin/sh
# fault "boot-fails": refuse to start guests of a cloud
case \$1 in osa-*) c=a ;; osb-*) c=b ;; *) exit 0 ;; esac
[ "\$2" = prepare ] && [ -e $CLOUDS/\$c/fault.boot ] && { echo "injected fault: boot" >&2; exit 1; }
exit 0
S
  chmod 755 /etc/libvirt/hooks/qemu
  rm -f /etc/libvirt/qemu/networks/autostart/default.xml
  live_f $I/run/virtlogd.pid || virtlogd -d -p $I/run/virtlogd.pid
  libvirtd -d -p $I/run/libvirtd.pid
fi
# --- Open vSwitch, where a cloud's release wants it: its userspace datapath carries taps, veth ends and the routers' ports
if [[ "$(for c in a b; do (cloud_vars $c; echo $SWITCH); done)" == *openvswitch* ]]; then
  mkdir -p $I/ovs /run/openvswitch
  if ! live_f $I/run/ovsdb.pid; then
    [ -e $I/ovs/conf.db ] || ovsdb-tool create $I/ovs/conf.db /usr/share/openvswitch/vswitch.ovsschema
    ovsdb-server $I/ovs/conf.db --remote=punix:/run/openvswitch/db.sock --remote=ptcp:6640:127.0.0.1 --pidfile=$I/run/ovsdb.pid --log-file=$I/log/ovsdb.log --detach --no-chdir >/dev/null 2>&1
  fi
  if ! live_f $I/run/vswitchd.pid; then
    ovs-vsctl --no-wait init
    # the guests' packets have partial checksums: without this they would reach nobody
    ovs-vsctl --no-wait set Open_vSwitch . external_ids:system-id=testbed external_ids:hostname=testbed other_config:userspace-tso-enable=true
    ovs-vswitchd unix:/run/openvswitch/db.sock --pidfile=$I/run/vswitchd.pid --log-file=$I/log/vswitchd.log --detach --no-chdir >/dev/null 2>&1
  fi
fi
# --- wait
wait_for $PATIENCE mysqladmin --socket=$I/run/mysql.sock ping
mysql --socket=$I/run/mysql.sock -e "CREATE USER IF NOT EXISTS 'os'@'%' IDENTIFIED BY '$SVCPW'; GRANT ALL ON *.* TO 'os'@'%';"
# the services retry RabbitMQ and libvirt by themselves
