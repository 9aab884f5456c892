#!/usr/bin/python3
"""Wait until every service and agent of a cloud reports itself alive: waitup.py BACKEND-IP REGION PASSWORD SECONDS AGENT...
SECONDS 0: ask once; AGENT: a binary of neutron
(cinder's newer service list asks the scheduler by RPC: a scheduler that is not there yet would cost a minute, hence 3.0)"""
import sys, time
from oslib import admin
ip, region, pw, limit, *agents = sys.argv[1:]
c = admin(ip, pw, region=region)
t = time.time(); last = None
while last is None or time.time() - t < float(limit):
    try:
        up = {s['binary'] for s in c.get('compute', '/os-services')['services'] if s['state'] == 'up'}
        up |= {s['binary'] for s in c.get('volumev3', '/os-services', microversion='3.0')['services'] if s['state'] == 'up'}
        up |= {a['binary'] for a in c.get('network', '/agents')['agents'] if a['alive']}
        miss = ({'nova-compute', 'nova-conductor', 'nova-scheduler', 'cinder-volume', 'cinder-scheduler', *agents}) - up
        if not miss and c.get('placement', '/resource_providers')['resource_providers'] and c.get('compute', '/os-hypervisors')['hypervisors']: sys.exit(0)
    except SystemExit: raise
    except Exception as e: miss = repr(e)[:300]
    if str(miss) != last: print('  waiting for', miss); last = str(miss)
    time.sleep(0.5)
sys.exit('not up: %s' % (miss,))
