#!/usr/bin/python3
"""Wait until every service and agent of a cloud reports itself alive: waitup.py BACKEND-IP REGION PASSWORD [SECONDS]
(cinder's newer service list asks the scheduler by RPC: a scheduler that is not there yet would cost a minute, hence 3.0)"""
import sys, time
from oslib import admin
ip, region, pw = sys.argv[1:4]
c = admin(ip, pw, region=region)
t = time.time(); last = None
limit = float(sys.argv[4]) if len(sys.argv) > 4 else 600        # seconds; 0: ask once
while last is None or time.time() - t < limit:
    try:
        up = {s['binary'] for s in c.get('compute', '/os-services')['services'] if s['state'] == 'up'}
        up |= {s['binary'] for s in c.get('volumev3', '/os-services', microversion='3.0')['services'] if s['state'] == 'up'}
        up |= {a['binary'] for a in c.get('network', '/agents')['agents'] if a['alive']}
        miss = ({'nova-compute', 'nova-conductor', 'nova-scheduler', 'cinder-volume', 'cinder-scheduler', 'neutron-linuxbridge-agent', 'neutron-dhcp-agent', 'neutron-l3-agent'}) - up
        if not miss and c.get('placement', '/resource_providers')['resource_providers'] and c.get('compute', '/os-hypervisors')['hypervisors']: sys.exit(0)
    except SystemExit: raise
    except Exception as e: miss = repr(e)[:300]
    if str(miss) != last: print('  waiting for', miss); last = str(miss)
    time.sleep(0.5)
sys.exit('not up: %s' % (miss,))
