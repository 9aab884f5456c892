# OpenStack Zed, Debian 12's own packages: what of a cloud depends on its release (sourced by cloud_vars; the other files say how it is used).
# shellcheck shell=bash disable=SC2034
BINARIES=/usr/bin PYTHON=/usr/bin/python3
PASTE=/etc         # paste files and rootwrap's filters are in PASTE/PROJECT
SWITCH=linuxbridge # neutron's mechanism driver, interface driver and layer 2 agent
NETWORK_AGENTS="neutron-linuxbridge-agent neutron-dhcp-agent neutron-l3-agent"
UWSGI="--rem-header Content-Length"
# What differs in a configuration file: FILE SECTION OPTION VALUE
SETTINGS='
glance-api.conf DEFAULT enabled_import_methods [glance-direct,web-download]
nova.conf neutron ovs_bridge br-none
neutron.conf experimental linuxbridge true
'
# The services in the order of their start: NAME, what must answer before, and what runs:
# wsgi PORT FILE-OR-MODULE UWSGI-OPTIONS, or fork PROJECT COMMAND MODULE:FUNCTION CONFIGURATION-FILES (in the directory of the project).
PROGRAMS='
keystone         -         wsgi 5000 /usr/bin/keystone-wsgi-public
placement        -         wsgi 8778 /usr/bin/placement-api
neutron-server   rabbitmq  fork neutron neutron-server neutron.cmd.eventlet.server:main neutron.conf ml2_conf.ini
glance-api       rabbitmq  fork glance glance-api glance.cmd.api:main glance-api.conf
cinder-api       rabbitmq  fork cinder cinder-api cinder.cmd.api:main cinder.conf
nova-conductor   keystone  fork nova nova-conductor nova.cmd.conductor:main nova.conf
nova-api         keystone  fork nova nova-api nova.cmd.api:main nova.conf
cinder-volume    keystone  fork cinder cinder-volume cinder.cmd.volume:main cinder.conf
cinder-scheduler keystone  fork cinder cinder-scheduler cinder.cmd.scheduler:main cinder.conf
nova-scheduler   keystone  fork nova nova-scheduler nova.cmd.scheduler:main nova.conf
nova-compute     placement fork nova nova-compute nova.cmd.compute:main nova-compute.conf
neutron-lb       neutron   fork neutron neutron-linuxbridge-agent neutron.cmd.eventlet.plugins.linuxbridge_neutron_agent:main neutron.conf ml2_conf.ini linuxbridge_agent.ini
neutron-dhcp     neutron   fork neutron neutron-dhcp-agent neutron.cmd.eventlet.agents.dhcp:main neutron.conf dhcp_agent.ini
neutron-l3       neutron   fork neutron neutron-l3-agent neutron.cmd.eventlet.agents.l3:main neutron.conf l3_agent.ini
'
# What the fork server of oslo.privsep's helpers imports; those run without eventlet.
PRIVSEP_NEUTRON="neutron.privileged neutron.privileged.agent.linux.ip_lib neutron.privileged.agent.linux.dhcp neutron.privileged.agent.linux.netlink_lib"
PRIVSEP_NOVA="nova.privsep nova.privsep.path nova.privsep.fs nova.privsep.qemu vif_plug_linux_bridge.privsep vif_plug_linux_bridge.linux_net os_brick.privileged.rootwrap"
