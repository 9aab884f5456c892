#!/usr/bin/python3
"""What a tenant needs: project, user (plain member role), application credentials, flavors, volume types, networks, key pair, guest image.
tenant.py a|b BACKEND-IP REGION NET EXTERNAL-NET ADMIN-PASSWORD STATE-DIR PUBLIC-URL CA-FILE-OR-EMPTY PUBLIC-KEY-FILE IMAGE-FILE
writes STATE-DIR/<c>/tenant.json. Admin is used for flavors, volume types and the flat networks only."""
import json, os, sys
from oslib import admin
c, ip, region, net, ext, pw, state, public, cacert, pubkey, image = sys.argv[1:12]
a = admin(ip, pw, region=region)
def ensure(svc, coll, one, name, path=None, **body):
    found = next((x for x in a.get(svc, path or '/' + coll)[coll] if x['name'] == name), None)
    return found or a.post(svc, path or '/' + coll, {one: dict(name=name, **body)})[one]
proj = ensure('identity', 'projects', 'project', 'tenant', domain_id='default')
user = ensure('identity', 'users', 'user', 'tenant', domain_id='default', password='tenantpw')
for r in a.get('identity', '/roles')['roles']:
    if r['name'] == 'member': a.put('identity', '/projects/%s/users/%s/roles/%s' % (proj['id'], user['id'], r['id']))
# flavors: two common ones, two that exist only here (names and sizes differ between the clouds)
flavors = {'tiny': (128, 1, 1), 'tiny-bfv': (128, 1, 0)}
flavors.update({'a': {'a1.small': (160, 1, 1), 'a1.large': (256, 2, 2)}, 'b': {'b1.medium': (192, 1, 2), 'b1.xlarge': (320, 2, 3)}}[c])
flavors = {n: ensure('compute', 'flavors', 'flavor', n, ram=r, vcpus=v, disk=d)['id'] for n, (r, v, d) in flavors.items()}
# volume types: the default one, and two of each cloud's own
types = ['nfs'] + {'a': ['ssd-a', 'archive-a'], 'b': ['fast-b', 'cold-b']}[c]
for t in types: ensure('volumev3', 'volume_types', 'volume_type', t, path='/types', extra_specs={'volume_backend_name': 'nfs'})
# the provider network belongs to the tenant (only a network's owner may choose addresses and MACs)
n = ensure('network', 'networks', 'network', 'provider', project_id=proj['id'], **{'provider:network_type': 'flat', 'provider:physical_network': 'physnet1'})
sn = ensure('network', 'subnets', 'subnet', 'provider', project_id=proj['id'], network_id=n['id'], ip_version=4, cidr=net + '.0/24', gateway_ip=net + '.1',
            allocation_pools=[{'start': net + '.100', 'end': net + '.199'}])
x = ensure('network', 'networks', 'network', 'public', **{'provider:network_type': 'flat', 'provider:physical_network': 'physnet2', 'router:external': True})
ensure('network', 'subnets', 'subnet', 'public', network_id=x['id'], ip_version=4, cidr=ext + '.0/24', gateway_ip=ext + '.1', enable_dhcp=False, allocation_pools=[{'start': ext + '.100', 'end': ext + '.199'}])
# application credentials: all roles; member + reader; the same with access rules; reader only
t = admin(ip, 'tenantpw', project='tenant', user='tenant', region=region); u = '/users/%s/application_credentials' % user['id']
for o in t.get('identity', u)['application_credentials']: t.delete('identity', u + '/' + o['id'])
def rule(service, path, *methods): return [dict(service=service, path=path, method=m) for m in methods]
R, W = ('GET',), ('GET', 'POST', 'PUT', 'DELETE')
kinds = {
    'mig': {},
    'member-reader': dict(roles=[{'name': 'member'}, {'name': 'reader'}]),
    'rules': dict(roles=[{'name': 'member'}, {'name': 'reader'}], access_rules=rule('compute', '/v2.1/**', *W) + rule('volumev3', '/v3/**', *W) + rule('image', '/v2/**', 'PATCH', *W) + rule('network', '/v2.0/**', *W)),
    'rules-read': dict(roles=[{'name': 'member'}, {'name': 'reader'}], access_rules=rule('compute', '/v2.1/servers/**', *R) + rule('volumev3', '/v3/**', *R)),
    'reader': dict(roles=[{'name': 'reader'}]),
}
creds = {}
for name, body in kinds.items():
    o = t.post('identity', u, {'application_credential': dict(name=name, **body)})['application_credential']; creds[name] = (o['id'], o['secret'])
# networks of the tenant's own; the guests on them are not reachable from outside, but keep their addresses (same ranges in both clouds)
def ensure_t(svc, coll, one, name, **body):
    found = next((x for x in t.get(svc, '/' + coll)[coll] if x['name'] == name), None)
    return found or t.post(svc, '/' + coll, {one: dict(name=name, **body)})[one]
nets = {'provider': {'id': n['id'], 'subnet': sn['id'], 'subnet_name': 'provider', 'cidr': net + '.0/24', 'gateway': net + '.1'}}
for name, cidr in (('net-' + c, '10.231.50'), ('shared-net', '10.231.60')):
    m = ensure_t('network', 'networks', 'network', name)
    ms = ensure_t('network', 'subnets', 'subnet', name, network_id=m['id'], ip_version=4, cidr=cidr + '.0/24', gateway_ip=cidr + '.1',
                  allocation_pools=[{'start': cidr + '.100', 'end': cidr + '.199'}])
    nets[name] = {'id': m['id'], 'subnet': ms['id'], 'subnet_name': name, 'cidr': cidr + '.0/24', 'gateway': cidr + '.1'}
if not any(k['keypair']['name'] == 'testbed' for k in t.get('compute', '/os-keypairs')['keypairs']):
    t.post('compute', '/os-keypairs', {'keypair': {'name': 'testbed', 'type': 'ssh', 'public_key': open(pubkey).read().strip()}})
img = next((x for x in t.get('image', '/images')['images'] if x['name'] == 'guest'), None)
if not img:
    img = t.post('image', '/images', {'name': 'guest', 'disk_format': 'qcow2', 'container_format': 'bare', 'visibility': 'private'})
    with open(image, 'rb') as f:
        t.call('image', 'PUT', '/images/%s/file' % img['id'], data=f, headers={'Content-Type': 'application/octet-stream'})
    img = t.wait('image', '/images/' + img['id'], None, 'active')
out = dict(ip=ip, region=region, auth_url=public + ':5000/v3', cacert=cacert or None, project=proj['id'], user=user['id'], appcred_id=creds['mig'][0], appcred_secret=creds['mig'][1],
           appcreds=creds, flavors=flavors, flavor=flavors['tiny'], flavor_bfv=flavors['tiny-bfv'], volume_types=types, net=n['id'], ext_net=x['id'], subnet=sn['id'], gw=net + '.1',
           networks=nets, keypair='testbed', image=img['id'], images={'guest': img['id']}, user_name='tenant', project_name='tenant')
json.dump(out, open(os.path.join(state, c, 'tenant.json'), 'w'), indent=1)
print('tenant of cloud %s ready: project %s, %d application credentials' % (c, proj['id'], len(creds)))
