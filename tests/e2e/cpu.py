#!/usr/bin/python3
"""Where the machine's CPU time goes, by kind of process: cpu.py OUTPUT, until it gets SIGTERM; then it writes a table.

Looks at all processes every second. What lived for less than that, and the kernel's own work, is told as "not seen"."""
import os
import re
import signal
import sys
import time

HZ = os.sysconf("SC_CLK_TCK")
# The first that fits a process's name or command line.
KINDS = [(kind, re.compile(pattern)) for kind, pattern in (
    ("guests (QEMU)", r"^qemu-system"),
    ("compiler, linker", r"^(rustc|cargo|clippy-driver|cc|ld|collect2|compile|link|go)\b|^rustup"),
    ("Nova", r"^nova-|privsep.*nova"),
    ("Neutron", r"^neutron-|^dnsmasq|(privsep|forkserver\.py).*neutron"),
    ("Cinder", r"^cinder-"),
    ("Glance", r"^glance-"),
    ("Keystone, placement", r"^uwsgi|keystone|placement"),
    ("MariaDB, RabbitMQ, libvirt", r"^mariadbd|^beam\.smp|^libvirtd|^virtlogd|^erl"),
    ("fork servers, helpers", r"forkserver|privsep|^sudo|^qemu-img|^haproxy"),
    ("API servers, etcd", r"^kube-apiserver|^etcd"),
    ("other parts of Kubernetes", r"^kube|^containerd|^runc|^csi-cinder|^pause"),
    ("operator, client", r"vmmigration( run|$)|^kubectl|^helm"),
    ("movers, restic", r"^vmmigration|^restic"),
    ("store", r"^versitygw"),
    ("tests", r"^e2e|target/.*/deps/"),
)]


def kind_of(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as f:
        words = f.read().decode(errors="replace").split("\0")
    with open(f"/proc/{pid}/comm") as f:
        names = (f.read().strip(), os.path.basename(words[0]) + " " + " ".join(words[1:3]), " ".join(words[:3]))
    return next((kind for kind, pattern in KINDS if any(pattern.search(n) for n in names)), "other")


def busy():
    """CPU seconds of the whole machine since it started."""
    with open("/proc/stat") as f:
        fields = [int(x) for x in f.readline().split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / HZ


def look(before, sums):
    now = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rsplit(") ", 1)[1].split()
            key = (pid, fields[19])  # with its start: numbers come again
            used = (int(fields[11]) + int(fields[12])) / HZ
            # A process begins under its parent's name; young ones are named again.
            kind = before[key][1] if key in before and before[key][2] > 3 else kind_of(pid)
            now[key] = (used, kind, before.get(key, (0, "", 0))[2] + 1)
            sums[kind] = sums.get(kind, 0) + used - before.get(key, (0,))[0]
        except (OSError, IndexError):
            continue
    return now


def main(output):
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    start, began = busy(), time.monotonic()
    before = look({}, {})
    sums = {}
    while not ended:
        time.sleep(1)
        before = look(before, sums)
    total, wall = busy() - start, time.monotonic() - began
    sums["not seen"] = max(0.0, total - sum(sums.values()))
    with open(output, "w") as f:
        f.write(f"{total:.0f} CPU seconds in {wall:.0f} s: {100 * total / wall / os.cpu_count():.0f} % of {os.cpu_count()} cores\n")
        for kind, seconds in sorted(sums.items(), key=lambda row: -row[1]):
            f.write(f"  {kind:<28} {seconds:7.0f} {100 * seconds / max(total, 1):5.1f} %\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
