#!/usr/bin/python3
"""Fork server: imports one project's code once and forks every service of the clouds of its release from it (a third of the CPU time of a
start is imports; shared pages save memory as well).  The children run the packages' own main() with their own arguments.
forkserver.py PROJECT DIR MODULE...   imports the modules; reads jobs, one JSON object a line, from DIR/PROJECT.fifo:
  {"main": "nova.cmd.compute:main", "argv": [...], "env": {...}, "out": FILE, "pid": FILE}   a service: new session, pid file
  {"main": ..., "argv": [...], "reply": FIFO}                                                 a helper: its exit status is written to FIFO
DIR/PROJECT.preload: more modules imported beforehand; if there is none, what the children import is appended to it."""
import gc, importlib, json, os, signal, sys, time
read, fork, waitpid, clock = os.read, os.fork, os.waitpid, time.time      # the real ones, before eventlet replaces them
project, d, *modules = sys.argv[1:]
fifo, lst = '%s/%s.fifo' % (d, project), '%s/%s.preload' % (d, project)
if not os.path.exists(fifo): os.mkfifo(fifo, 0o600)
fd = os.open(fifo, os.O_RDWR)
t0 = clock(); bad = []
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'py'))      # cinder's repaired NFS driver
record = not os.path.exists(lst)
for m in modules + ([] if record else open(lst).read().split()):
    # never the managers (nor what imports one): their periodic tasks read the configuration while they are imported
    if m in sys.modules or m.endswith('manager') or m.startswith('cinder.scheduler.') or m == 'cinder.opts': continue
    try: importlib.import_module(m)
    except BaseException as e: bad.append('%s (%s)' % (m, type(e).__name__))
print('%s: %d modules in %.1f s, not importable: %s' % (project, len(sys.modules), clock() - t0, bad), flush=True)
early = [m for m in ('nova.compute.manager', 'nova.scheduler.manager', 'cinder.volume.manager', 'cinder.scheduler.manager') if m in sys.modules]
if early: sys.exit('imported without a configuration: %s; remove from %s what imports them' % (early, lst))
gc.collect(); gc.freeze()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
open('%s/%s.ready' % (d, project), 'w').close()

class Recorder:
    def find_spec(self, name, path=None, target=None):
        with open(lst + '.new', 'a') as f: f.write(name + '\n')

def own_hub():
    """A hub that eventlet made during the imports has an epoll set that all forks would share: each would wake for the events
    of all others, find nothing to do, and wake again, for ever. Each fork makes its own."""
    hubs = sys.modules.get('eventlet.hubs')
    if hubs and hasattr(hubs._threadlocal, 'hub'): hubs.use_hub()

def child(j):
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(fd)
    own_hub()
    if 'reply' in j:        # a helper that puts itself in the background: wait for its first process only
        p = fork()
        if p:
            rc = waitpid(p, 0)[1] >> 8
            with open(j['reply'], 'w') as f: f.write('%d\n' % rc)
            os._exit(0)
    else: os.setsid()
    os.environ.update(j.get('env', {}))
    if 'cwd' in j: os.chdir(j['cwd'])
    n = os.open('/dev/null', os.O_RDONLY); os.dup2(n, 0); os.close(n)
    o = os.open(j.get('out', '/dev/null'), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644); os.dup2(o, 1); os.dup2(o, 2); os.close(o)
    if 'pid' in j:
        with open(j['pid'] + '.tmp', 'w') as f: f.write('%d\n' % os.getpid())
        os.rename(j['pid'] + '.tmp', j['pid'])
    if record: sys.meta_path.insert(0, Recorder())
    sys.argv = j['argv']
    with open('/proc/self/comm', 'w') as f: f.write(os.path.basename(sys.argv[0])[:15])
    mod, fn = j['main'].split(':')
    return getattr(importlib.import_module(mod), fn)

buf = b''; main = None
while main is None:
    buf += read(fd, 65536)
    while b'\n' in buf and main is None:
        line, buf = buf.split(b'\n', 1)
        if fork() == 0: main = child(json.loads(line))
sys.exit(main())
