#!/usr/bin/python3
"""What the demo does by hand in the two clouds, as their tenant.

cloud.py create NAME         in site-a: a server with a root volume and an attached data volume; prints its address
cloud.py show CLOUD NAME     prints its id, state, whether it is locked, and its volumes
cloud.py clean NAME          removes what an earlier demo left in both clouds, only what belongs to the server NAME
"""
import sys
import time

import openstack

SITES = ("site-a", "site-b")


def connect(cloud):
    return openstack.connect(cloud=cloud)


def call(adapter, method, path, **arguments):
    """One request; raises with the cloud's own words."""
    response = adapter.request(path, method, raise_exc=False, **arguments)
    if response.status_code == 404 and method == "DELETE":
        return {}
    if response.status_code >= 400:
        raise SystemExit(f"{method} {path}: {response.status_code} {response.text[:300]}")
    return response.json() if response.content else {}


# The deadline is for what hangs, not for what is slow.
def until(what, condition, seconds=900):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.5)
    raise SystemExit(f"gave up after {seconds} s waiting for {what}")


def by_name(adapter, kind, name):
    return [x for x in call(adapter, "GET", f"/{kind}/detail")[kind] if x["name"] == name]


def volume(cloud, **attributes):
    made = call(cloud.block_storage, "POST", "/volumes", json={"volume": attributes})["volume"]

    def ready():
        state = call(cloud.block_storage, "GET", f"/volumes/{made['id']}")["volume"]["status"]
        if state == "error":
            raise SystemExit(f"volume {attributes['name']} is in error")
        return state == "available"

    until(f"volume {attributes['name']}", ready)
    return made["id"]


def create(name):
    cloud = connect("site-a")
    image = next(i["id"] for i in call(cloud.image, "GET", "/images?name=guest")["images"])
    flavor = next(f["id"] for f in call(cloud.compute, "GET", "/flavors")["flavors"] if f["name"] == "tiny")
    network = call(cloud.network, "GET", "/networks?name=provider")["networks"][0]["id"]
    root = volume(cloud, name=f"{name}-root", size=1, imageRef=image, volume_type="nfs")
    data = volume(cloud, name=f"{name}-data", size=1, volume_type="nfs")
    server = call(cloud.compute, "POST", "/servers", json={"server": {
        "name": name, "flavorRef": flavor, "key_name": "testbed", "config_drive": True,
        "networks": [{"uuid": network}],
        "block_device_mapping_v2": [{"boot_index": 0, "uuid": root, "source_type": "volume",
                                     "destination_type": "volume"}]}})["server"]["id"]

    def active():
        found = call(cloud.compute, "GET", f"/servers/{server}")["server"]
        if found["status"] == "ERROR":
            raise SystemExit(f"server {name}: {found.get('fault')}")
        return found if found["status"] == "ACTIVE" else None

    found = until(f"server {name}", active)
    call(cloud.compute, "POST", f"/servers/{server}/os-volume_attachments",
         json={"volumeAttachment": {"volumeId": data}})
    until("the data volume", lambda: call(
        cloud.block_storage, "GET", f"/volumes/{data}")["volume"]["status"] == "in-use")
    print(next(a["addr"] for addresses in found["addresses"].values() for a in addresses))


def show(site, name):
    cloud = connect(site)
    cloud.compute.default_microversion = "2.9"  # tells of locks
    servers = by_name(cloud.compute, "servers", name)
    for s in servers:
        volumes = " ".join(v["id"] for v in s["os-extended-volumes:volumes_attached"])
        print(s["id"], s["status"], "locked" if s["locked"] else "unlocked", volumes)
    if not servers:
        print("none")


def clean_site(site, name):
    cloud = connect(site)
    volumes = {v["id"] for n in (f"{name}-root", f"{name}-data") for v in by_name(cloud.block_storage, "volumes", n)}
    ports = set()
    servers = by_name(cloud.compute, "servers", name)
    for server in servers:
        volumes |= {v["id"] for v in server["os-extended-volumes:volumes_attached"]}
        ports |= {p["id"] for p in call(cloud.network, "GET", f"/ports?device_id={server['id']}")["ports"]}
        call(cloud.compute, "POST", f"/servers/{server['id']}/action", json={"unlock": None})
        call(cloud.compute, "DELETE", f"/servers/{server['id']}")
    until(f"{site}: the old server's end", lambda: not by_name(cloud.compute, "servers", name))
    for port in ports:
        call(cloud.network, "DELETE", f"/ports/{port}")
    present = lambda kind: [x for x in call(cloud.block_storage, "GET", f"/{kind}/detail")[kind]  # noqa: E731
                            if (x["volume_id"] if kind == "snapshots" else x["id"]) in volumes]
    # Snapshots go one at a time, and only now: a file backend cannot delete them while the server is stopped.
    for snapshot in present("snapshots"):
        call(cloud.block_storage, "DELETE", f"/snapshots/{snapshot['id']}")
        until(f"{site}: a snapshot's end", lambda: snapshot["id"] not in [s["id"] for s in present("snapshots")])
    until(f"{site}: detached volumes", lambda: all(v["status"] in ("available", "error") for v in present("volumes")))
    for old in present("volumes"):
        call(cloud.block_storage, "DELETE", f"/volumes/{old['id']}")
    until(f"{site}: the old volumes' end", lambda: not present("volumes"))
    print(f"{site}: {len(servers)} server(s) and {len(volumes)} volume(s) of an earlier demo removed")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["create", name]:
            create(name)
        case ["show", site, name]:
            show(site, name)
        case ["clean", name]:
            for s in SITES:
                clean_site(s, name)
        case _:
            raise SystemExit(__doc__)
