#!/usr/bin/python3
"""Deletes everything the tenant has made; what "up" provides (networks, key pair, guest image) stays: empty-tenant.py TENANT.JSON
A stuck volume or snapshot is reset and deleted by the admin, who is not bound to the tenant's rules."""
import json, sys, time
from oslib import admin, appcred
T = json.load(open(sys.argv[1])); K = admin(T['ip'], sys.argv[2], region=T['region'])
k = appcred(T); t = time.time()
left = []
def sweep(svc, path, coll):
    t1 = time.time(); last = 0
    while 1:
        l = k.get(svc, path)[coll]
        if svc == 'image': l = [x for x in l if x['owner'] == T['project'] and x['id'] not in T['images'].values()]
        if not l: return
        if time.time() - t1 > 90: left.append(coll); print('left:', coll, [(x['id'], x.get('status')) for x in l]); return
        if time.time() - last > 5:
            last = time.time()
            for x in l:
                p = path.split('?')[0].replace('/detail', '') + '/' + x['id']
                if svc == 'image' and x.get('protected'):
                    k.call('image', 'PATCH', p, ok=False, data=json.dumps([{'op': 'replace', 'path': '/protected', 'value': False}]), headers={'Content-Type': 'application/openstack-images-v2.1-json-patch'})
                if svc == 'compute' and x.get('locked'): k.call(svc, 'POST', p + '/action', {'unlock': None}, ok=False)
                # what is in a state that the tenant cannot delete, after it had its time
                if svc == 'volumev3' and (x['status'].startswith('error_') or time.time() - t1 > 15):
                    K.call(svc, 'POST', p + '/action', {'os-reset_status': {'status': 'error', **({'attach_status': 'detached'} if coll == 'volumes' else {})}}, ok=False)
                    if coll == 'volumes':
                        for at in K.get(svc, '/attachments?all_tenants=1&volume_id=' + x['id'])['attachments']: K.delete(svc, '/attachments/' + at['id'], ok=False)
                if svc == 'compute' and time.time() - t1 > 15: K.call(svc, 'POST', p + '/action', {'os-resetState': {'state': 'error'}}, ok=False)
                k.call(svc, 'DELETE', p, ok=False)
        time.sleep(0.5)
for x in k.get('volumev3', '/os-volume-transfer')['transfers']: k.delete('volumev3', '/os-volume-transfer/' + x['id'])
sweep('compute', '/servers/detail', 'servers'); sweep('volumev3', '/snapshots/detail', 'snapshots'); sweep('volumev3', '/volumes/detail', 'volumes'); sweep('image', '/images', 'images')
for x in k.get('compute', '/os-server-groups')['server_groups']: k.delete('compute', '/os-server-groups/' + x['id'], ok=False)
for x in k.get('compute', '/os-keypairs')['keypairs']:
    if x['keypair']['name'] != T['keypair']: k.delete('compute', '/os-keypairs/' + x['keypair']['name'], ok=False)
net = lambda coll: [x for x in k.get('network', '/' + coll)[coll.replace('-', '_')] if x.get('project_id') == T['project']]
for x in net('floatingips'): k.delete('network', '/floatingips/' + x['id'], ok=False)
for r in net('routers'):
    for p in k.get('network', '/ports?device_id=' + r['id'])['ports']:
        for f in p['fixed_ips']: k.put('network', '/routers/%s/remove_router_interface' % r['id'], {'subnet_id': f['subnet_id']}, ok=False)
    k.delete('network', '/routers/' + r['id'], ok=False)
for p in net('ports'):
    if not p['device_owner']: k.delete('network', '/ports/' + p['id'], ok=False)
for n in net('networks'):
    if n['id'] not in [x['id'] for x in T['networks'].values()]: k.delete('network', '/networks/' + n['id'], ok=False)
for n in net('security-groups'):
    if n['name'] != 'default': k.delete('network', '/security-groups/' + n['id'], ok=False)
print('tenant in %s empty in %.1f s' % (T['region'], time.time() - t)); sys.exit(1 if left else 0)
