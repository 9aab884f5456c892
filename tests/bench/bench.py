#!/usr/bin/env python3
"""Moves disks between two network namespaces by our movers and by what people would use instead, and measures both.

Settings come from the environment: see docs/contributing.md. Run by tests/bench/run, which installs and builds.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

MIB = 1 << 20
ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
CACHE_BIN = os.path.join(os.environ.get("TESTBED_CACHE", "/var/cache/vmmigration-testbed"), "bin")
DIRECTORY = os.environ.get("BENCH_DIR", "/var/tmp/vmmigration-bench")
MOVER = os.environ.get("BENCH_MOVER", os.path.join(ROOT, "target/release/vmmigration"))
FULL = os.environ.get("BENCH_FULL") == "1"
SCALE = int(os.environ.get("BENCH_SCALE", "1"))  # divides all sizes: for trying the benchmark itself
TIMEOUT = int(os.environ.get("BENCH_TIMEOUT", "900"))  # seconds that one tool may take for one pass
UID = "0f5c9a52-6d8f-4a6e-9b6e-3b1f6f0c2a11"

NODES = {"source": "10.97.0.1", "store": "10.97.0.2", "target": "10.97.0.3"}
HUB = "vmb-hub"
LINKS = {"200mbit": 200, "1gbit": 1000, "unshaped": None}
DISKS = {"files": 4096, "random": 1024, "empty": 16384}
DISK_TEXTS = {
    "files": "4 GiB, an ext4 file system with about 1 GiB of real files",
    "random": "1 GiB of random bytes",
    "empty": "16 GiB, all zeros but for 64 MiB",
}
TOOL_TEXTS = {
    "ours": "mover backup and mover restore, both at once",
    "ours-extra": "the same without --no-extra-verify: restic unpacks again what it saves",
    "nbdcopy": "nbdcopy from nbdkit, block device to block device",
    "qemu-img": "qemu-img convert over NBD (os-migrate's command), block device to block device",
    "nbdcopy-file": "nbdcopy from nbdkit over a sparse file: holes are known",
    "qemu-img-file": "qemu-img convert over NBD from a sparse file: holes are known",
    "rsync": "rsync --inplace",
    "rsync-z": "rsync --inplace -z",
    "zstd": "zstd -T0 -3 | tcp | zstd -d",
    "restic": "restic backup --stdin-from-command, then restic dump",
}
# The others would send the whole disk again: their second pass is their first.
SECOND_PASS = {"ours", "ours-extra", "rsync", "rsync-z", "restic"}
# What `make bench` runs by default, in about 65 minutes; BENCH_FULL=1 runs every tool over every disk and link. Left out
# is what a rate tells: a tool that sends all of a block device needs disk / link, 172 s for 4 GiB at 200 Mbit/s.
DEFAULT = {
    ("files", "200mbit"): {"ours", "qemu-img-file", "rsync-z", "zstd", "restic"},
    ("files", "1gbit"): {"ours", "nbdcopy", "qemu-img", "qemu-img-file", "rsync-z", "zstd", "restic"},
    ("files", "unshaped"): {"ours", "nbdcopy", "qemu-img", "rsync", "zstd", "restic"},
    ("random", "1gbit"): {"ours", "nbdcopy", "qemu-img", "rsync", "zstd", "restic"},
    ("empty", "1gbit"): {"ours", "qemu-img-file", "zstd", "restic"},
}


def chosen(name, known):
    """The part of a list that a variable names; all without one."""
    wanted = os.environ.get(name, "").replace(",", " ").split() or list(known)
    unknown = [item for item in wanted if item not in known]
    if unknown:
        sys.exit(f"{name}: {', '.join(unknown)}: known are {', '.join(known)}")
    return wanted


def run(*command, **options):
    """Runs a command that has to succeed; its output is in the error."""
    done = subprocess.run(command, text=True, capture_output=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()[-800:]}")
    return done.stdout


def within(node, *command):
    """The command line that runs something in a namespace; exec'd, so that its rusage is the program's own."""
    return ["nsenter", f"--net=/run/netns/vmb-{node}", *command]


# ---- the network ----------------------------------------------------------------------------------------------------


class Network:
    """Source, store and target, each in a namespace, joined by a bridge in a fourth."""

    def __init__(self):
        self.delay = False

    def up(self):
        self.down()
        for name in [HUB, *(f"vmb-{node}" for node in NODES)]:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", HUB, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", HUB, "link", "set", "bridge", "up")
        for node, address in NODES.items():
            own = f"vmb-{node}"
            run("ip", "-n", HUB, "link", "add", node, "type", "veth", "peer", "name", "eth0", "netns", own)
            run("ip", "-n", HUB, "link", "set", node, "master", "bridge", "up")
            run("ip", "-n", own, "address", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", own, "link", "set", "eth0", "up")
        self.delay = self.can_delay()

    @staticmethod
    def can_delay():
        try:
            run("tc", "-n", HUB, "qdisc", "add", "dev", "source", "root", "netem", "delay", "20ms")
        except RuntimeError:
            return False
        run("tc", "-n", HUB, "qdisc", "del", "dev", "source", "root")
        return True

    def shape(self, link):
        """Limits what every node sends (in its own namespace) and receives (at the bridge); 20 ms are on the way in."""
        for node in NODES:
            for namespace, device in ((f"vmb-{node}", "eth0"), (HUB, node)):
                subprocess.run(
                    ["tc", "-n", namespace, "qdisc", "del", "dev", device, "root"], capture_output=True, check=False
                )
                rate = LINKS[link]
                if rate is not None:
                    run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "handle", "1:", "tbf",
                        "rate", f"{rate}mbit", "burst", "256kb", "latency", "50ms")
                    if self.delay and namespace == HUB:
                        run("tc", "-n", namespace, "qdisc", "add", "dev", device, "parent", "1:1", "netem",
                            "delay", "20ms", "limit", "20000")

    @staticmethod
    def counters():
        """Bytes sent and received by each node since it is there."""
        result = {}
        for node in NODES:
            stats = json.loads(run("ip", "-n", f"vmb-{node}", "-j", "-s", "link", "show", "dev", "eth0"))[0]["stats64"]
            result[node] = (stats["tx"]["bytes"], stats["rx"]["bytes"])
        return result

    @staticmethod
    def down():
        """Removes our namespaces, and nobody else's; their links go with them."""
        there = run("ip", "netns", "list").split()
        for name in [*(f"vmb-{node}" for node in NODES), HUB]:
            if name in there:
                run("ip", "netns", "del", name)


# ---- processes ------------------------------------------------------------------------------------------------------


def descendants(pid):
    """A process and all below it."""
    yield pid
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as file:
                for child in file.read().split():
                    yield from descendants(int(child))


def resident(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def own_cpu(pid):
    """Seconds of CPU that a process has used, without its children."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Processes:
    """What one tool runs during one pass: started, waited for, added up."""

    def __init__(self, log):
        self.log = log
        self.running = {}
        self.cpu = {}
        self.own_cpu = {}
        self.peak = 0
        self.ended = threading.Event()
        self.sampler = threading.Thread(target=self.sample, daemon=True)
        self.sampler.start()

    def sample(self):
        while not self.ended.wait(0.1):
            self.peak = max(self.peak, sum(resident(p) for pid in list(self.running) for p in descendants(pid)))

    def start(self, role, command, **options):
        self.log.write(f"+ {' '.join(command)}\n")
        self.log.flush()
        options.setdefault("stdout", self.log)
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=self.log, start_new_session=True, **options)
        self.running[child.pid] = (role, child)
        return child.pid

    def wait(self, pid, accept=(0,)):
        """Waits for a process within the time that a pass may take; all CPU that it and its children used is kept."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.running[pid][0]}: not done after {TIMEOUT} s")
            time.sleep(0.01)
        # What has ended and was not waited for still tells what it used itself, without its children.
        own = own_cpu(pid)
        _, status, usage = os.wait4(pid, 0)
        role, child = self.running.pop(pid)
        self.own_cpu[role] = self.own_cpu.get(role, 0) + own
        child.returncode = os.waitstatus_to_exitcode(status)
        self.cpu[role] = self.cpu.get(role, 0) + usage.ru_utime + usage.ru_stime
        if child.returncode not in accept:
            raise RuntimeError(f"{role}: exit {child.returncode}, see {self.log.name}")

    def stop(self, pid):
        """Ends a server that was there for one pass."""
        os.kill(pid, signal.SIGTERM)
        self.wait(pid, accept=(0, 20, -signal.SIGTERM, 143))

    def close(self):
        """Leaves nothing behind, also when a pass failed."""
        for pid, (_, child) in list(self.running.items()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            child.wait()
            self.running.pop(pid)
        self.ended.set()
        self.sampler.join()


def wait_for_port(node, port):
    """Until something listens; asks the kernel, since a connection would be the server's only one."""
    for _ in range(500):
        if f":{port} " in run(*within(node, "ss", "-Hltn")):
            return
        time.sleep(0.01)
    raise RuntimeError(f"nothing listens on port {port} of {node}")


# ---- disks ----------------------------------------------------------------------------------------------------------


def write_at(file, rng, offset, length):
    file.seek(offset)
    file.write(rng.randbytes(length))


def make_disk(name, path):
    """The same bytes each time, but for the files, which are this machine's."""
    size = DISKS[name] * MIB // SCALE
    rng = random.Random(name)
    with open(path, "wb") as file:
        file.truncate(size)
        if name == "random":
            for offset in range(0, size, MIB):
                write_at(file, rng, offset, MIB)
        if name == "empty":
            for offset in range(0, size, size // 16):
                write_at(file, rng, offset + 3 * MIB // SCALE, 4 * MIB // SCALE)
    if name == "files":
        fill_with_files(path, size)
    subprocess.run(["fallocate", "--dig-holes", path], capture_output=True, check=False)


def fill_with_files(path, size):
    """An ext4 file system with a quarter of its size in files of /usr, in the order of their names."""
    tree, room = f"{path}.tree", size // 4
    shutil.rmtree(tree, ignore_errors=True)
    for directory, directories, files in os.walk("/usr"):
        directories.sort()
        for name in sorted(files):
            source = os.path.join(directory, name)
            if os.path.islink(source) or not os.path.isfile(source):
                continue
            length = os.path.getsize(source)
            if length > room or length > 64 * MIB:
                continue
            room -= length
            copy = tree + source
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            shutil.copyfile(source, copy)
        if room < MIB:
            break
    run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", "-d", tree, path)
    shutil.rmtree(tree)


def change_disk(name, path):
    """50 MiB: blocks of 64 KiB scattered over what holds data, 8 MiB written again in one place, 12 MiB new."""
    size, rng = os.path.getsize(path), random.Random(f"{name} changed")
    data = size if name == "random" else size // 4
    with open(path, "r+b") as file:
        for _ in range(480 // SCALE):
            write_at(file, rng, rng.randrange(data >> 16) << 16, 1 << 16)
        write_at(file, rng, data // 2, 8 * MIB // SCALE)
        write_at(file, rng, size - 32 * MIB // SCALE, 12 * MIB // SCALE)


@contextlib.contextmanager
def loop(path, *options):
    device = run("losetup", "--find", "--show", *options, path).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


def flush(device):
    """No tool is done before its bytes are on the disk."""
    fd = os.open(device, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def compressed_bytes(path):
    """What zstd makes of a disk: the least that a fast compressor would have to send."""
    return int(run("sh", "-c", f"zstd -q -T0 -3 -c <'{path}' | wc -c"))


# ---- the store ------------------------------------------------------------------------------------------------------


class Store:
    """The test bed's versitygw over a tmpfs, with a certificate of its own CA."""

    def __init__(self):
        self.directory = f"{DIRECTORY}/store"
        self.keys = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret", "AWS_DEFAULT_REGION": "us-east-1"}
        self.url = f"s3:https://{NODES['store']}:9000/bench"
        self.process = None

    def up(self):
        os.makedirs(self.directory)
        run("mount", "-t", "tmpfs", "-o", "size=6g", "vmb-store", self.directory)
        os.makedirs(f"{self.directory}/data/bench")
        pem, key = f"{self.directory}/cert.pem", f"{self.directory}/key.pem"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
            "-subj", "/CN=vmb CA", "-keyout", f"{self.directory}/ca.key", "-out", self.ca())
        run("bash", "-c", f"""openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=store -keyout {key} |
            openssl x509 -req -CA {self.ca()} -CAkey {self.directory}/ca.key -set_serial 2 -days 30 -out {pem} \
            -extfile <(printf 'subjectAltName=IP:{NODES["store"]}\\nextendedKeyUsage=serverAuth\\nbasicConstraints=CA:FALSE\\n')""")
        environment = {**os.environ, "ROOT_ACCESS_KEY": "bench", "ROOT_SECRET_KEY": "bench-secret"}
        command = within("store", f"{CACHE_BIN}/versitygw", "--port", f"{NODES['store']}:9000", "--cert", pem, "--key",
                         key, "posix", f"{self.directory}/data")
        log = open(f"{DIRECTORY}/store.log", "w")
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for_port("store", 9000)

    def ca(self):
        return f"{self.directory}/ca.pem"

    def cpu(self):
        return own_cpu(self.process.pid)

    def empty(self):
        shutil.rmtree(f"{self.directory}/data/bench")
        os.makedirs(f"{self.directory}/data/bench")

    def down(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
        if os.path.ismount(self.directory):
            run("umount", self.directory)


# ---- the tools ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Pass:
    """One pass of one tool: what it copies, and what it may use."""

    tool: str
    number: int
    source: str
    source_file: str
    target: str
    processes: Processes
    store: Store
    scratch: str


def prepare(case):
    """What a migration does once before its first byte; not measured, for us and restic alike."""
    case.store.empty()
    shutil.rmtree(case.scratch, ignore_errors=True)
    os.makedirs(case.scratch)
    if case.tool.startswith("ours"):
        for directory in ("config", "source", "target"):
            os.makedirs(f"{case.scratch}/{directory}")
        for name, value in {**case.store.keys, "restic-password": os.urandom(32).hex()}.items():
            with open(f"{case.scratch}/config/{name}", "w") as file:
                file.write(value)
        shutil.copy(case.store.ca(), f"{case.scratch}/config/store-cacert")
        case.processes.wait(case.processes.start(
            "init", mover(case, "source", "init", "--migration-uid", UID, "--object", "bench/bench"), env=ours_environment()))
    if case.tool == "restic":
        case.processes.wait(case.processes.start(
            "init", within("source", "restic", "init", "--cacert", case.store.ca()), env=restic_environment(case, "source")))


def mover(case, side, verb, *more):
    return within(side, MOVER, "mover", verb, "--config-dir", f"{case.scratch}/config",
                  "--scratch-dir", f"{case.scratch}/{side}", "--termination-log", f"{case.scratch}/{verb}.json",
                  "--repository", f"{case.store.url}/{UID}", *more)


def ours_environment():
    return {**os.environ, "RESTIC": f"{CACHE_BIN}/restic"}


def restic_environment(case, side):
    return {**os.environ, **case.store.keys, "RESTIC_REPOSITORY": f"{case.store.url}/plain", "RESTIC_PASSWORD": "plain",
            "RESTIC_CACHE_DIR": f"{case.scratch}/cache-{side}", "PATH": f"{CACHE_BIN}:{os.environ['PATH']}"}


def ours(case):
    """The Jobs' command lines, both started at once: the restore takes segments while the backup makes them."""
    number = ["--disk", "0", "--pass", str(case.number)]
    base, held, lean = [], [], [] if case.tool == "ours-extra" else ["--no-extra-verify"]
    if case.number:
        base = ["--base-manifest", snapshot_of(case, "backup")]
        held = ["--holds", snapshot_of(case, "restore")]
    p = case.processes
    backup = p.start("backup", mover(case, "source", "backup", "--device", case.source, "--migration-uid", UID,
                                     "--keep-digests", *lean, *number, *base), env=ours_environment())
    restore = p.start("restore", mover(case, "target", "restore", "--device", case.target, "--verify-disk", *number,
                                       *held), env=ours_environment())
    p.wait(backup)
    p.wait(restore)


def snapshot_of(case, verb):
    """The manifest that the first pass made or restored, as the operator takes it from the Job's result."""
    with open(f"{case.scratch}/{verb}.json") as file:
        return json.load(file)["result"]["snapshotId"]


def nbd(case):
    """One NBD server at the source; the client writes to the block device at the target."""
    served = case.source_file if case.tool.endswith("-file") else case.source
    p = case.processes
    server = p.start("server", within("source", "nbdkit", "-f", "-r", "-p", "10809", "file", served))
    wait_for_port("source", 10809)
    url = f"nbd://{NODES['source']}:10809"
    client = {"nbdcopy": ["nbdcopy", url, case.target],
              "qemu-img": ["qemu-img", "convert", "-f", "raw", "-O", "host_device", url, case.target]}
    p.wait(p.start("client", within("target", *client[case.tool.removesuffix("-file")])))
    p.stop(server)


def rsync(case):
    """A daemon at the target; the source pushes. The second pass compares both sides."""
    with open(f"{case.scratch}/rsyncd.conf", "w") as file:
        file.write("use chroot = no\nuid = root\ngid = root\n[dev]\npath = /dev\nread only = no\nmunge symlinks = no\n"
                   "refuse options = !write-devices !copy-devices\n")
    p = case.processes
    daemon = p.start("server", within("target", "rsync", "--daemon", "--no-detach", "--port=8730",
                                      f"--config={case.scratch}/rsyncd.conf"))
    wait_for_port("target", 8730)
    options = ["-z"] if case.tool == "rsync-z" else []
    # A device has the size of the other one and says nothing by its time.
    options += ["--ignore-times", "--no-whole-file" if case.number else "--whole-file"]
    device = os.path.basename(case.target)
    p.wait(p.start("client", within("source", "rsync", "--inplace", "--copy-devices", "--write-devices", *options,
                                    case.source, f"rsync://{NODES['target']}:8730/dev/{device}")))
    p.stop(daemon)


def zstd(case):
    """The shortest pipe that compresses."""
    p = case.processes
    receiver = p.start("target", within("target", "sh", "-c", f"socat -u TCP-LISTEN:9100,reuseaddr - | zstd -q -d -c >{case.target}"))
    wait_for_port("target", 9100)
    sender = p.start("source", within("source", "sh", "-c",
                                      f"zstd -q -T0 -3 -c <{case.source} | socat -u - TCP:{NODES['target']}:9100"))
    p.wait(sender)
    p.wait(receiver)


def restic(case):
    """What one would do by hand: one stream up, then one stream down."""
    p, ca = case.processes, ["--cacert", case.store.ca()]
    p.wait(p.start("backup", within("source", "restic", "backup", "-q", *ca, "--stdin-filename", "disk", "--stdin-from-command",
                                    "--", "dd", f"if={case.source}", "bs=1M", "status=none"),
                   env=restic_environment(case, "source")))
    with open(case.target, "r+b", buffering=0) as file:
        p.wait(p.start("dump", within("target", "restic", "dump", "-q", *ca, "latest", "/disk"),
                       env=restic_environment(case, "target"), stdout=file))


TOOLS = {"ours": ours, "ours-extra": ours, "nbdcopy": nbd, "qemu-img": nbd, "nbdcopy-file": nbd, "qemu-img-file": nbd, "rsync": rsync,
         "rsync-z": rsync, "zstd": zstd, "restic": restic}


# ---- measuring ------------------------------------------------------------------------------------------------------


def measure(network, case):
    """One pass: everything that the issue asks for, and the proof that the bytes arrived."""
    before, store_cpu = network.counters(), case.store.cpu()
    started = time.monotonic()
    TOOLS[case.tool](case)
    flush(case.target)
    wall = time.monotonic() - started
    after, store_cpu = network.counters(), case.store.cpu() - store_cpu
    run("cmp", case.source, case.target)
    moved = {node: [b - a for a, b in zip(before[node], after[node])] for node in NODES}
    case.processes.cpu.pop("init", None)
    case.processes.own_cpu.pop("init", None)
    return {"pass": case.number, "wall": round(wall, 3), "cpu": round(sum(case.processes.cpu.values()), 3),
            "cpu_of": {k: round(v, 3) for k, v in case.processes.cpu.items()}, "own_cpu_of": {k: round(v, 3) for k, v in case.processes.own_cpu.items()}, "store_cpu": round(store_cpu, 3),
            "peak_rss": case.processes.peak, "sent": moved["source"][0], "received": moved["target"][1],
            "back": moved["target"][0] + moved["source"][1]}


def copy_once(network, store, tool, disk):
    """Both passes of one tool over one disk, onto a new target."""
    base, changed, target = (f"{DIRECTORY}/{name}" for name in (f"{disk}.raw", f"{disk}-changed.raw", "target.raw"))
    with open(target, "wb") as file:
        file.truncate(os.path.getsize(base))
    results, scratch = [], f"{DIRECTORY}/scratch"
    with loop(target) as device, open(f"{DIRECTORY}/{tool}.log", "w") as log:
        for number, path in enumerate([base, changed] if tool in SECOND_PASS else [base]):
            processes = Processes(log)
            try:
                # The same name in both passes, as a volume has the same name; what it holds has changed.
                with loop(path, "--read-only") as source:
                    case = Pass(tool, number, source, path, device, processes, store, scratch)
                    if number == 0:
                        prepare(case)
                        processes.peak = 0
                    results.append(measure(network, case))
            finally:
                processes.close()
    os.remove(target)
    shutil.rmtree(scratch, ignore_errors=True)
    return results


def load():
    return round(os.getloadavg()[0], 1)


def version(*command):
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    return (done.stdout or done.stderr).strip().splitlines()[0] if (done.stdout or done.stderr).strip() else "unknown"


def machine(network):
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model, "cores": os.cpu_count(), "memory": memory, "kernel": os.uname().release,
        "delay_20ms": network.delay, "built_as": os.environ.get("BENCH_MOVER_NOTE", "release"),
        "commit": version("git", "-C", ROOT, "rev-parse", "--short", "HEAD"),
        "versions": {
            "vmmigration": version(MOVER, "--version"), "restic": version(f"{CACHE_BIN}/restic", "version"),
            "versitygw": version(f"{CACHE_BIN}/versitygw", "--version"), "nbdkit": version("nbdkit", "--version"),
            "nbdcopy": version("nbdcopy", "--version"), "qemu-img": version("qemu-img", "--version"),
            "rsync": version("rsync", "--version"), "zstd": version("zstd", "--version"),
        },
    }


def remove_leftovers(store):
    """What a benchmark that was killed could not take away: its loop devices, its mount, its files."""
    for entry in json.loads(run("losetup", "--list", "--json") or "{}").get("loopdevices", []):
        if (entry["back-file"] or "").startswith(f"{DIRECTORY}/"):
            run("losetup", "--detach", entry["name"])
    store.down()
    shutil.rmtree(DIRECTORY, ignore_errors=True)


def save(report):
    """Written after each result: what was measured survives whatever comes."""
    path = os.environ["BENCH_OUT"]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")


def main():
    links, disks, tools = chosen("BENCH_LINKS", LINKS), chosen("BENCH_DISKS", DISKS), chosen("BENCH_CASES", TOOLS)
    rounds, limit = int(os.environ.get("BENCH_RUNS", "3")), float(os.environ.get("BENCH_MINUTES", "0")) * 60
    network, store, began = Network(), Store(), time.monotonic()
    # `make bench` begins nothing after this, so that it ends; what was left out is said.
    if not limit and not FULL:
        limit = 75 * 60
    remove_leftovers(store)
    os.makedirs(DIRECTORY, exist_ok=True)
    report = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"), "scale": SCALE,
              "rounds": rounds, "load_before": load(), "full": FULL, "disks": {}, "results": [], "left_out": []}
    try:
        network.up()
        store.up()
        report["machine"] = machine(network)
        for disk in disks:
            base = f"{DIRECTORY}/{disk}.raw"
            make_disk(disk, base)
            run("cp", "--sparse=always", base, f"{DIRECTORY}/{disk}-changed.raw")
            change_disk(disk, f"{DIRECTORY}/{disk}-changed.raw")
            report["disks"][disk] = {"bytes": os.path.getsize(base), "data": os.stat(base).st_blocks * 512,
                                     "compressed": compressed_bytes(base)}
        for number in range(rounds):
            for disk in disks:
                for link in links:
                    network.shape(link)
                    # Interleaved: what disturbs the machine for minutes disturbs all tools.
                    for tool in tools:
                        case = {"round": number, "disk": disk, "link": link, "tool": tool}
                        if not FULL and tool not in DEFAULT.get((disk, link), ()):
                            continue
                        if limit and time.monotonic() - began > limit:
                            report["left_out"].append(case)
                            continue
                        for result in copy_once(network, store, tool, disk):
                            report["results"].append({**case, **result, "load": load()})
                            save(report)
                            print(f"{number} {disk} {link} {tool} pass {result['pass']}: {result['wall']:.1f} s, "
                                  f"{result['cpu']:.1f} CPU-s, {result['sent'] / MIB:.0f} MiB sent", flush=True)
    finally:
        with contextlib.suppress(Exception):
            store.down()
        network.down()
        shutil.rmtree(DIRECTORY if not sys.exc_info()[0] else f"{DIRECTORY}/store", ignore_errors=True)
    report["load_after"] = load()
    save(report)


if __name__ == "__main__":
    # SIGTERM ends as Ctrl-C does: through the clean-up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
