#!/bin/bash
# Writes the configuration of one cloud, its networks' veth pairs and its haproxy: config.sh a|b
set -euo pipefail
. "$(dirname "$0")/env.sh"; cloud_vars "$1"
mkdir -p $ETC/{keystone,glance,placement,nova,neutron,cinder} $LOG $RUN $D/{glance/images,glance/staging,nova/instances,nova/mnt,cinder/conversion,cinder/mnt,share,neutron,lock}
db() { echo "mysql+pymysql://os:$SVCPW@$INFRA_IP:3306/os${C}_$1?charset=utf8"; }
MQ=rabbit://ostack:$SVCPW@$INFRA_IP:5672/os$C
KS=http://$BE:5000/v3     # the services talk to each other on the internal, plain endpoints
auth() { cat <<S
auth_type = password
auth_url = $KS
username = svc
password = $SVCPW
project_name = service
user_domain_name = Default
project_domain_name = Default
region_name = $REGION
S
}
# links in answers (version lists, "next") must carry the public scheme and address: haproxy says it in X-Forwarded-Proto
proxy() { printf '[oslo_middleware]\nenable_proxy_headers_parsing = true\n'; }
mw() { cat <<S
[keystone_authtoken]
www_authenticate_uri = $SCHEME://$IP:5000/v3
interface = internal
$(auth)
service_token_roles = service
service_token_roles_required = true
service_type = $1
[oslo_concurrency]
lock_path = $D/lock
[oslo_messaging_notifications]
driver = noop
[oslo_messaging_rabbit]
heartbeat_timeout_threshold = 120
rabbit_retry_interval = 1
kombu_reconnect_delay = 0.5
S
proxy
}
dbsec() { cat <<S
[$1]
connection = $(db $2)
max_pool_size = 5
max_overflow = 20
S
}
# Lines of the release for a file, at its end: sections may come again.
of_release() { awk -v f="$1" '$1 == f {printf "[%s]\n%s =", $2, $3; for (i = 4; i <= NF; i++) printf " %s", $i; print ""}' <<<"$SETTINGS"; }
# ---------------------------------------------------------------- keystone
cat > $ETC/keystone/keystone.conf <<S
[DEFAULT]
log_file = $LOG/keystone.log
[database]
connection = $(db keystone)
[token]
provider = fernet
expiration = 86400
[identity]
password_hash_rounds = 4
[application_credential]
user_limit = -1
[fernet_tokens]
key_repository = $D/fernet
[fernet_receipts]
key_repository = $D/fernet
[credential]
key_repository = $D/credential
[cache]
enabled = true
backend = dogpile.cache.memory
[oslo_messaging_notifications]
driver = noop
$(proxy)
S
# ---------------------------------------------------------------- placement
cat > $ETC/placement/placement.conf <<S
[DEFAULT]
log_file = $LOG/placement.log
[api]
auth_strategy = keystone
[placement_database]
connection = $(db placement)
$(mw placement)
S
# ---------------------------------------------------------------- glance
cat > $ETC/glance/glance-api.conf <<S
[DEFAULT]
bind_host = $BE
bind_port = 9292
workers = 0
log_file = $LOG/glance.log
enabled_backends = file:file
# clouds differ; and Python needs twice as long for the default as for this
$([ "$C" = b ] || echo hashing_algorithm = sha256)
transport_url = $MQ
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = $D/glance/images
filesystem_thin_provisioning = true
[os_glance_staging_store]
filesystem_store_datadir = $D/glance/staging
[os_glance_tasks_store]
filesystem_store_datadir = $D/glance/tasks
[paste_deploy]
flavor = keystone
config_file = $PASTE/glance/glance-api-paste.ini
$(dbsec database glance)
$(mw image)
$(of_release glance-api.conf)
S
mkdir -p $D/glance/tasks
# ---------------------------------------------------------------- nova
cat > $ETC/nova/nova.conf <<S
[DEFAULT]
host = cloud$C
my_ip = $BE
state_path = $D/nova
instances_path = $D/nova/instances
instance_name_template = os$C-%08x
compute_driver = libvirt.LibvirtDriver
transport_url = $MQ
log_dir = $LOG
enabled_apis = osapi_compute
osapi_compute_listen = $BE
osapi_compute_workers = 1
ram_allocation_ratio = 8.0
cpu_allocation_ratio = 16.0
disk_allocation_ratio = 8.0
reserved_host_memory_mb = 0
reserved_host_disk_mb = 0
shutdown_timeout = 10
shutdown_retry_interval = 2
vif_plugging_timeout = 120
vif_plugging_is_fatal = true
force_config_drive = false
allow_resize_to_same_host = true
block_device_allocate_retries = 120
block_device_allocate_retries_interval = 1
heal_instance_info_cache_interval = 120
sync_power_state_interval = 60
max_concurrent_builds = 4
periodic_fuzzy_delay = 0
[quota]
instances = 30
cores = 60
ram = 20480
[api]
auth_strategy = keystone
[wsgi]
api_paste_config = $PASTE/nova/api-paste.ini
[conductor]
workers = 1
[scheduler]
workers = 1
discover_hosts_in_cells_interval = 3
[filter_scheduler]
enabled_filters = ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,ServerGroupAntiAffinityFilter,ServerGroupAffinityFilter
$(dbsec api_database nova_api)
$(dbsec database nova)
$(mw compute)
[service_user]
send_service_user_token = true
$(auth)
[placement]
$(auth)
valid_interfaces = internal
[glance]
region_name = $REGION
valid_interfaces = internal
num_retries = 3
[cinder]
$(auth)
os_region_name = $REGION
catalog_info = volumev3:cinderv3:internalURL
[neutron]
$(auth)
valid_interfaces = internal
[libvirt]
virt_type = qemu
cpu_mode = none
connection_uri = qemu:///system
nfs_mount_point_base = $D/nova/mnt
inject_partition = -2
num_volume_scan_tries = 3
wait_soft_reboot_seconds = 20
[vnc]
enabled = false
[spice]
enabled = false
[os_vif_linux_bridge]
use_ipv6 = false
[workarounds]
disable_libvirt_livesnapshot = false
skip_cpu_compare_on_dest = true
$(of_release nova.conf)
S
# under uwsgi it wants this beside nova.conf
cp $PASTE/nova/api-paste.ini $ETC/nova/
# nova-compute must not see the databases (it then tries all cells and logs "No DB access allowed")
awk '/^\[/{skip=($0=="[database]"||$0=="[api_database]")} !skip' $ETC/nova/nova.conf > $ETC/nova/nova-compute.conf
# ---------------------------------------------------------------- neutron
cat > $ETC/neutron/neutron.conf <<S
[DEFAULT]
host = cloud$C
state_path = $D/neutron
core_plugin = ml2
service_plugins = router,trunk
bind_host = $BE
bind_port = 9696
transport_url = $MQ
log_dir = $LOG
api_paste_config = $PASTE/neutron/api-paste.ini
api_workers = 0
rpc_workers = 1
rpc_state_report_workers = 0
notify_nova_on_port_status_changes = true
notify_nova_on_port_data_changes = true
send_events_interval = 1
dhcp_agents_per_network = 1
dhcp_load_type = networks
agent_down_time = 120
dns_domain = os$C.test.
global_physnet_mtu = 1500
[agent]
root_helper = sudo
report_interval = 20
$(dbsec database neutron)
$(mw network)
[nova]
$(auth)
endpoint_type = internal
[quotas]
quota_port = 500
quota_network = 100
quota_subnet = 100
quota_router = 20
quota_floatingip = 50
quota_security_group = 200
quota_security_group_rule = 1000
$(of_release neutron.conf)
S
cat > $ETC/neutron/ml2_conf.ini <<S
[ml2]
type_drivers = flat,local
tenant_network_types = local
mechanism_drivers = $SWITCH
extension_drivers = port_security
[ml2_type_flat]
flat_networks = physnet1,physnet2
[securitygroup]
enable_security_group = true
enable_ipset = false
S
cat > $ETC/neutron/linuxbridge_agent.ini <<S
[linux_bridge]
physical_interface_mappings = physnet1:os${C}phy,physnet2:os${C}xphy
[vxlan]
enable_vxlan = false
[securitygroup]
firewall_driver = noop
enable_security_group = false
enable_ipset = false
[agent]
polling_interval = 1
S
cat > $ETC/neutron/openvswitch_agent.ini <<S
[ovs]
bridge_mappings = physnet1:os${C}br,physnet2:os${C}xbr
datapath_type = netdev
[securitygroup]
firewall_driver = noop
enable_security_group = false
enable_ipset = false
[agent]
polling_interval = 1
S
cat > $ETC/neutron/dhcp_agent.ini <<S
[DEFAULT]
interface_driver = $SWITCH
dhcp_driver = neutron.agent.linux.dhcp.Dnsmasq
enable_isolated_metadata = false
force_metadata = false
resync_interval = 5
num_sync_threads = 1
[agent]
S
cat > $ETC/neutron/l3_agent.ini <<S
[DEFAULT]
interface_driver = $SWITCH
agent_mode = legacy
enable_metadata_proxy = false
[agent]
S
# ---------------------------------------------------------------- cinder
echo "localhost:$D/share" > $ETC/cinder/nfs_shares
cat > $ETC/cinder/cinder.conf <<S
[DEFAULT]
host = cloud$C
my_ip = $BE
state_path = $D/cinder
transport_url = $MQ
log_dir = $LOG
auth_strategy = keystone
osapi_volume_listen = $BE
osapi_volume_workers = 1
api_paste_config = $PASTE/cinder/api-paste.ini
rootwrap_config = $PASTE/cinder/rootwrap.conf
enabled_backends = nfs
default_volume_type = nfs
glance_api_servers = http://$BE:9292
image_conversion_dir = $D/cinder/conversion
resource_query_filters_file = $PASTE/cinder/resource_filters.json
volume_usage_audit_period = month
quota_volumes = 100
quota_snapshots = 100
quota_gigabytes = 1000
periodic_interval = 30
backend_stats_polling_interval = 20
[nfs]
volume_driver = ostack_nfs.NfsDriver
volume_backend_name = nfs
nfs_shares_config = $ETC/cinder/nfs_shares
nfs_mount_point_base = $D/cinder/mnt
nfs_snapshot_support = true
nfs_qcow2_volumes = true
nfs_sparsed_volumes = true
nas_secure_file_operations = false
nas_secure_file_permissions = false
max_over_subscription_ratio = 20.0
[coordination]
backend_url = file://$D/cinder
[nova]
$(auth)
interface = internal
token_auth_url = $KS
[service_user]
send_service_user_token = true
$(auth)
$(dbsec database cinder)
$(mw volumev3)
S
# keystone's keys (what fernet_setup and credential_setup make)
for k in fernet credential; do [ -d $D/$k ] || { mkdir -p -m 700 $D/$k; for n in 0 1; do head -c 32 /dev/urandom | base64 | tr -d '\n' | tr '+/' '-_' > $D/$k/$n; done; }; done
# a bind mount is only seen by os.path.ismount() if the parent is another file system
mountpoint -q $D/nova/mnt || mount -t tmpfs -o size=1m osmnt $D/nova/mnt
# networks: the lab's end of each veth pair has the gateway address (routing goes through the lab's stack), the other end goes into
# neutron's bridge.  physnet1: the tenant's provider network; physnet2: the external network of the routers (floating IPs)
veth() { ip link show $1host >/dev/null 2>&1 && return; ip link add $1host type veth peer name $1phy; ip addr add $2.1/24 dev $1host; ip link set $1host up; ip link set $1phy up; }
veth os${C} $NET; veth os${C}x $EXT
# Open vSwitch: each physical network is a bridge of the userspace datapath with the other end as a port
bridge() { ovs-vsctl --may-exist add-br $1 -- set Bridge $1 datapath_type=netdev fail_mode=secure; }
[ $SWITCH != openvswitch ] || { bridge br-int; for x in os${C} os${C}x; do bridge ${x}br; ovs-vsctl --may-exist add-port ${x}br ${x}phy; done; }
# ---------------------------------------------------------------- public side: haproxy, plain (A) or TLS with a private CA (B), with switchable faults
H=$D/haproxy; mkdir -p $H; : > $H/fault.map
[ $SCHEME = http ] || [ -s $H/crt.pem ] || "$TB/lib/certificate.sh" "$H/crt.pem" "$H/key.pem" "cloud-$C" "IP:$IP,DNS:cloud-$C.test"
[ ! -s $H/crt.pem ] || cat $H/crt.pem $H/key.pem > $H/cert.pem
cat > $H/fault.lua <<'S'
-- a fault is "delay=MS,status=N,percent=P", looked up by haproxy under SERVICE or SERVICE/METHOD
core.register_action("fault", {"http-req"}, function(txn)
  local f = txn:get_var("txn.fault") or ""
  if math.random(100) > (tonumber(f:match("percent=(%d+)")) or 100) then return end
  local ms = tonumber(f:match("delay=(%d+)")); if ms then core.msleep(ms) end
  txn:set_var("txn.status", f:match("status=(%w+)") or "")
end)
S
{ cat <<S
global
  maxconn 500
  stats socket $RUN/haproxy.sock mode 600 level admin
  lua-load $H/fault.lua
defaults
  mode http
  timeout connect 5s
  timeout client 10m
  timeout server 10m
  timeout http-keep-alive 10s
  option forwardfor
S
for s in keystone:5000 nova:8774 cinder:8776 placement:8778 glance:9292 neutron:9696; do n=${s%:*} p=${s#*:}
cat <<S
frontend $n
  bind $IP:$p $([ $SCHEME = https ] && echo "ssl crt $H/cert.pem")
  http-request set-header X-Forwarded-Proto $SCHEME
  http-request set-var-fmt(txn.key) "$n/%[method]"
  http-request set-var(txn.fault) str($n),map($H/fault.map)
  http-request set-var(txn.fault) var(txn.key),map($H/fault.map) unless { var(txn.fault) -m found }
  http-request lua.fault if { var(txn.fault) -m found }
$(for x in 401 403 404 409 413 429 500 502 503 504; do echo "  http-request return status $x content-type text/plain string \"injected fault $x\" if { var(txn.status) -m str $x }"; done)
  http-request return status 404 content-type text/html string "<html><body><h1>404 Not Found</h1><p>no backend</p></body></html>" if { var(txn.status) -m str 404page }
  http-request silent-drop if { var(txn.status) -m str drop }
  http-request reject if { var(txn.status) -m str reset }
  http-request set-header X-Fault %[var(txn.fault)] if { var(txn.status) -m str half }
  use_backend half-$n if { var(txn.status) -m str half }
  use_backend $n
backend $n
  server $n $BE:$p
backend half-$n
  http-request set-header X-Backend $BE:$p
  server half $BE:$HALF_PORT
S
done; } > $H/haproxy.cfg
