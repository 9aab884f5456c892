#!/usr/bin/python3
"""clouds.yaml for the openstack command line, from both clouds' tenant.json: clouds-yaml.py CLOUDS-DIR ADMIN-PASSWORD
site-a, site-b: the tenant by application credential; site-a-member-reader, -rules, ...: its other application credentials; site-a-admin."""
import json, sys
print('clouds:')
for c in 'ab':
    t = json.load(open('%s/%s/tenant.json' % (sys.argv[1], c)))
    def cloud(name, kind, **auth):
        print('  %s:\n    region_name: %s\n    identity_api_version: 3' % (name, t['region']))
        if kind: print('    auth_type: ' + kind)
        if t.get('cacert'): print('    cacert: ' + t['cacert'])
        print('    auth:\n      auth_url: %s' % t['auth_url'])
        for k, v in auth.items(): print('      %s: %s' % (k, v))
    for name, (i, s) in t['appcreds'].items():
        cloud('site-' + c + ('' if name == 'mig' else '-' + name), 'v3applicationcredential', application_credential_id=i, application_credential_secret=s)
    for name, user, pw in (('admin', 'admin', sys.argv[2]), ('tenant', 'tenant', 'tenantpw')):
        cloud('site-%s-%s' % (c, name), None, username=user, password=pw, project_name=user, user_domain_name='Default', project_domain_name='Default')
