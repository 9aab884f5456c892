# OpenStack 2026.2 from PyPI, in a venv of the cache: what of a cloud depends on its release (sourced by cloud_vars; zed.sh explains the variables).
# shellcheck shell=bash disable=SC2034
VENV=$CACHE/openstack-2026.2
BINARIES=$VENV/bin PYTHON=$VENV/bin/python
PASTE=$VENV/etc
# There is no linuxbridge any more. Open vSwitch's userspace datapath needs no module of the kernel.
SWITCH=openvswitch
NETWORK_AGENTS="neutron-openvswitch-agent neutron-dhcp-agent neutron-l3-agent"
# Debian's uwsgi and its plugin for the same Python, with the venv as its home. There is no other server: nova-api, neutron-server and
# the *-wsgi-* scripts are gone, and glance-api refuses to run by itself.
UWSGI="--home $VENV --thunder-lock"
SETTINGS=
# glanceclient (in Cinder and Nova) sends chunks of 1 MiB: with uwsgi's limit each upload of a volume would be a 500.
# Neutron's server is three: the API, what agents ask, and what is done from time to time.
PROGRAMS="
keystone         -         wsgi 5000 keystone.wsgi.api:application
placement        -         wsgi 8778 placement.wsgi.api:application
neutron-server   rabbitmq  wsgi 9696 neutron.wsgi.api:application
glance-api       rabbitmq  wsgi 9292 glance.wsgi.api:application --chunked-input-limit 16777216 --chunked-input-timeout 600
cinder-api       rabbitmq  wsgi 8776 cinder.wsgi.api:application --pyargv --config-file=$ETC/cinder/cinder.conf
nova-conductor   keystone  fork nova nova-conductor nova.cmd.conductor:main nova.conf
nova-api         keystone  wsgi 8774 nova.wsgi.osapi_compute:application
cinder-volume    keystone  fork cinder cinder-volume cinder.cmd.volume:main cinder.conf
cinder-scheduler keystone  fork cinder cinder-scheduler cinder.cmd.scheduler:main cinder.conf
nova-scheduler   keystone  fork nova nova-scheduler nova.cmd.scheduler:main nova.conf
neutron-rpc      keystone  fork neutron neutron-rpc-server neutron.cmd.server:main_rpc neutron.conf ml2_conf.ini
neutron-periodic keystone  fork neutron neutron-periodic-workers neutron.cmd.server:main_periodic neutron.conf ml2_conf.ini
nova-compute     placement fork nova nova-compute nova.cmd.compute:main nova-compute.conf
neutron-ovs      neutron   fork neutron neutron-openvswitch-agent neutron.cmd.agents.ovs_neutron_agent:main neutron.conf ml2_conf.ini openvswitch_agent.ini
neutron-dhcp     neutron   fork neutron neutron-dhcp-agent neutron.cmd.agents.dhcp:main neutron.conf dhcp_agent.ini
neutron-l3       neutron   fork neutron neutron-l3-agent neutron.cmd.agents.l3:main neutron.conf l3_agent.ini
"
PRIVSEP_NEUTRON="neutron.privileged neutron.privileged.agent.linux.ip_lib neutron.privileged.agent.linux.dhcp neutron.privileged.agent.linux.netlink_lib"
PRIVSEP_NOVA="nova.privsep nova.privsep.path nova.privsep.fs nova.privsep.qemu vif_plug_ovs.privsep vif_plug_ovs.linux_net os_brick.privileged.rootwrap"
