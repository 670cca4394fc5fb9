# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""balun trace of running processes: tests/cli/trace.sh.

trace.py BALUN TARGET DIR   DIR is for files; prints "ok NAME", "FAIL NAME: why" or "SKIP NAME: why"
"""
import contextlib
import glob
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree

BALUN, TARGET, DIR = sys.argv[1:4]
CAUSES = 'user device-fault cpu-fault prefetch eviction invalidate thrash teardown'.split()


LIMIT_S = 30
waits_for = []


def hangs(_sig, _frame):
    raise TimeoutError('after %d s nothing has come of it: %s' % (LIMIT_S, waits_for[0]))


@contextlib.contextmanager
def within(what):
    """who has not come to its end in LIMIT_S fails, also where it sleeps; of nested ones the outermost counts"""
    waits_for.append(what)
    if len(waits_for) == 1:
        signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        waits_for.pop()
        if not waits_for:
            signal.alarm(0)


class Target:
    """tests/live/target.c, running; @before: what runs it"""

    def __init__(self, *args, before=()):
        self.p = subprocess.Popen([*before, TARGET, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, bufsize=1)
        line = self.answer()
        assert line.startswith('up '), line + self.p.stderr.read()
        self.pid = int(line.split()[1])

    def answer(self):
        with within('an answer of the program'):
            return self.p.stdout.readline().strip()

    def ask(self, line):
        self.p.stdin.write(line + '\n')
        return self.answer()

    def quiet(self):
        """its counters, when nothing moves: reading ahead goes on after a touch, and so does who served it"""
        with within('a moment when nothing moves'):
            after, before = json.loads(self.ask('stats')), None
            while before != after or after['served'] != after['cpu_faults']:
                before, after = after, json.loads(self.ask('stats'))
        return after

    def stop(self):
        self.p.stdin.close()
        with within('the end of the program'):
            err = self.p.stderr.read()
            self.p.wait()
        self.p.stdout.close()
        self.p.stderr.close()
        return err


class Tracer:
    """balun trace PID, begun"""

    def __init__(self, pid, name, *args):
        self.path = os.path.join(DIR, name)
        self.p = subprocess.Popen([BALUN, 'trace', '-o', self.path, *args, str(pid)], stderr=subprocess.PIPE, text=True)
        with within('the beginning of a trace'):
            while not os.path.exists(self.path) or not fd_of_ring(self.p.pid):
                assert self.p.poll() is None, self.p.stderr.read()

    def end(self):
        self.p.send_signal(signal.SIGINT)
        err = self.ended()
        assert self.p.returncode == 0, err
        return load(self.path)

    def ended(self):
        with within('the end of balun trace'):
            return self.p.communicate()[1]


def fd_of_ring(pid):
    try:
        with open('/proc/%d/maps' % pid, encoding='ascii', errors='replace') as f:
            return 'memfd:balun-trace' in f.read()
    except FileNotFoundError:
        return False


def load(path):
    """the events, checked as a viewer would"""
    with open(path, encoding='utf-8') as f:
        whole = json.load(f)
    for e in whole['traceEvents']:
        assert e['ph'] in 'MXiC' and isinstance(e['pid'], int) and isinstance(e['tid'], int), e
        assert e['ph'] == 'M' or e['ts'] >= 0, e
        assert e['ph'] != 'X' or e['dur'] >= 0, e
        assert e['name'] and e['cat'], e
    return whole


def check(whole, own, pid=None):
    """events add up to what the process has counted"""
    sums = {way: dict.fromkeys(CAUSES, 0) for way in ('to_device', 'to_system', 'device_to_device')}
    count = {'cpu_faults': 0, 'evictions': 0, 'invalidations': 0}
    assert whole['otherData']['dropped'] == '0'
    for e in whole['traceEvents']:
        a = e.get('args', {})
        if pid and e['pid'] != pid:
            continue
        if e['cat'] == 'migrate':
            way = 'to_device' if a['from'] == 'system' else 'to_system' if a['to'] == 'system' else 'device_to_device'
            sums[way][a['cause']] += a['bytes']
        elif e['cat'] == 'fault':
            count['cpu_faults'] += a['by'] == 'cpu'
            assert a['err'] <= 0
        elif e['cat'] == 'evict':
            count['evictions'] += 1
        elif e['cat'] == 'invalidate':
            count['invalidations'] += a['cause'] == 'invalidate'
    for way, by_cause in sums.items():
        assert by_cause == own[way], (way, by_cause, own[way])
    for what, n in count.items():
        assert n == own[what], (what, n, own[what])


def counted(path):
    """whether the tracer has asked how full the devices are"""
    with open(path, encoding='utf-8') as f:
        return '"ph":"C"' in f.read()


def program():
    """a program from its first moment: nothing is missed, its output and exit code are its own"""
    path = os.path.join(DIR, 'program.json')
    t = Target('lz4:mem=16M', '40', before=[BALUN, 'trace', '-o', path, '--'])
    for line in 'out 40', 'in 8', 'out 8', 'in 40':
        assert t.ask(line) == 'ok'
    own = t.quiet()
    with within('devices in the file'):
        while not counted(path):
            time.sleep(0.01)
    err = t.stop()
    assert t.p.returncode == 0, t.p.returncode
    assert 'events of 1 processes in ' + path in err and 'DROPPED' not in err, err
    assert own['evictions'] and own['cpu_faults'] and own['to_device']['user']
    whole = load(path)
    check(whole, own, t.pid)
    names = {e['args'][k] for e in whole['traceEvents'] if e['cat'] == 'migrate' for k in ('from', 'to')}
    assert names == {'system', 'lz4'}, names
    assert {e['args']['name'] for e in whole['traceEvents'] if e['ph'] == 'M'} == {'target'}
    assert [e for e in whole['traceEvents'] if e['ph'] == 'C' and e['name'] == 'lz4']
    path = os.path.join(DIR, 'nothing.json')
    p = subprocess.run([BALUN, 'trace', '-o', path, 'sh', '-c', 'exit 9'], stderr=subprocess.DEVNULL, check=False)
    assert p.returncode == 9 and load(path)['traceEvents'] == []
    p = subprocess.run([BALUN, 'trace', '-o', path, '--', './no-such'], stderr=subprocess.DEVNULL, check=False)
    assert p.returncode == 127


def without_ring(t):
    """it gives the memory back"""
    with within('the memory of a trace given back'):
        while fd_of_ring(t.pid):
            assert t.ask('in 1') == 'ok'


def running():
    """a process that runs: from then on, one tracer at a time, and it never notices"""
    t = Target('ram', '16')
    assert t.ask('out 16') == 'ok'
    before = t.quiet()
    tracer = Tracer(t.pid, 'running.json')
    p = subprocess.run([BALUN, 'trace', '-o', os.path.join(DIR, 'second.json'), str(t.pid)], stderr=subprocess.PIPE,
                       text=True, check=False)
    assert p.returncode == 1 and 'is traced already' in p.stderr, p
    assert not os.path.exists(os.path.join(DIR, 'second.json'))
    assert t.ask('in 16') == 'ok'
    own = t.quiet()
    for way in 'to_device', 'to_system', 'device_to_device':
        own[way] = {c: own[way][c] - before[way][c] for c in CAUSES}
    for what in 'cpu_faults', 'evictions', 'invalidations':
        own[what] -= before[what]
    check(tracer.end(), own)
    without_ring(t)
    # a tracer that is killed leaves it as it was, and the next one can come
    tracer = Tracer(t.pid, 'killed.json')
    tracer.p.kill()
    tracer.ended()
    without_ring(t)
    tracer = Tracer(t.pid, 'after.json')
    assert t.ask('out 4') == 'ok'
    assert [e for e in tracer.end()['traceEvents'] if e['cat'] == 'migrate']
    t.stop()


def killed():
    """what a process wrote before kill -9 is there, and the file is whole"""
    t = Target('ram', '16')
    tracer = Tracer(t.pid, 'dead.json')
    assert t.ask('out 16') == 'ok'
    own = t.quiet()
    t.p.kill()
    err = tracer.ended()
    assert tracer.p.returncode == 0, err
    check(load(tracer.path), own)
    t.stop()


def forked():
    """a child has a ring of its own, and writes nothing into its parent's"""
    path = os.path.join(DIR, 'forked.json')
    t = Target('ram', '8', before=[BALUN, 'trace', '-o', path, '--', 'sh', '-c', '"$@" | cat', 'sh'])
    assert t.ask('out 8') == 'ok'
    child = int(t.ask('fork').split()[1])
    assert t.ask('out 4') == 'ok'
    own = t.quiet()
    err = t.stop()
    assert 'of 2 processes' in err, err
    check(load(path), own, child)


def refused():
    p = subprocess.run([BALUN, 'trace', '-o', os.path.join(DIR, 'x.json'), '2147483647'], stderr=subprocess.PIPE,
                       text=True, check=False)
    assert p.returncode == 1 and 'no Balun in it' in p.stderr, p
    if os.geteuid():
        return 'only root can be another user'
    before = ['setpriv', '--reuid', '54321', '--regid', '54321', '--clear-groups']
    if subprocess.run([*before, BALUN, '--version'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                      check=False).returncode:
        return 'another user cannot run %s' % BALUN
    t = Target('ram', '8')
    p = subprocess.run([*before, BALUN, 'trace', '-o', '/dev/null', str(t.pid)], stderr=subprocess.PIPE, text=True,
                       check=False)
    assert p.returncode == 3 and "another user's" in p.stderr, p
    t.stop()
    return None


def plot():
    """a picture, as XML; of what is no trace none"""
    out = os.path.join(DIR, 'plot.svg')
    p = subprocess.run([BALUN, 'trace', '--plot', os.path.join(DIR, 'program.json'), '-o', out], check=False)
    assert p.returncode == 0
    root = xml.etree.ElementTree.parse(out).getroot()
    space = '{http://www.w3.org/2000/svg}'
    assert root.tag == space + 'svg'
    cells = [r.get('class').split() for r in root.iter(space + 'rect') if r.get('class') and ' ' in r.get('class')]
    kinds = {c[0] for c in cells}  # what most of a cell is: what came along outweighs what was touched
    assert 'w0' in kinds and kinds & {'w1', 'w2'}, kinds
    height, width = int(root.get('height')), int(root.get('width'))
    for r in root.iter(space + 'rect'):
        if r.get('class'):
            assert 0 <= int(r.get('x')) and int(r.get('x')) + int(r.get('width')) <= width, r.attrib
            assert 0 <= int(r.get('y')) and int(r.get('y')) + int(r.get('height')) <= height, r.attrib
    bad = os.path.join(DIR, 'bad.json')
    for text in '', '{}', '{"traceEvents":[\n{"cat":"migrate"}\n]}':
        with open(bad, 'w', encoding='ascii') as f:
            f.write(text)
        p = subprocess.run([BALUN, 'trace', '--plot', bad, '-o', out], stderr=subprocess.PIPE, text=True, check=False)
        assert p.returncode == 2 and 'not a file that balun trace has written' in p.stderr, (text, p)


def notes():
    """the probes of USDT stand in the library where the header was there"""
    if not glob.glob('/usr/include/sys/sdt.h') + glob.glob('/usr/include/*/sys/sdt.h'):
        return 'sys/sdt.h is missing (package systemtap-sdt-dev)'
    lib = os.path.join(os.path.dirname(BALUN), 'libbalun.so')
    text = subprocess.run(['readelf', '-n', lib], stdout=subprocess.PIPE, text=True, check=True).stdout.split('\n')
    found = {}
    for i, line in enumerate(text):
        if line.strip() == 'Provider: balun':
            found[text[i + 1].split()[1]] = text[i + 2]
    assert set(found) == {'fault', 'migrate', 'evict', 'invalidate'}, found
    assert all(int(line.split()[-1], 16) for line in found.values()), found  # semaphores
    return None


def run():
    """what `balun run` runs, and all that it begins"""
    libraries = subprocess.run(['ldd', BALUN], stdout=subprocess.PIPE, check=True).stdout
    if b'libasan' in libraries or b'libtsan' in libraries:
        return 'a build with a sanitizer'
    path = os.path.join(DIR, 'run.json')
    code = 'b=bytearray(48<<20)\nfor i in range(0,len(b),4096): b[i]=i>>12&255\n' \
           'assert all(b[i]==i>>12&255 for i in range(0,len(b),4096))'
    p = subprocess.run([BALUN, 'trace', '-o', path, '--', BALUN, 'run', '--quiet', '--resident', '16M', '--device',
                        'lz4', '--', sys.executable, '-c', code], stderr=subprocess.PIPE, text=True, check=False)
    assert p.returncode == 0, p
    moves = [e for e in load(path)['traceEvents'] if e['cat'] == 'migrate']
    assert {'system', 'ram'} <= {m['args'][k] for m in moves for k in ('from', 'to')}, moves[:5]
    return None


signal.signal(signal.SIGALRM, hangs)
for test in program, running, killed, forked, refused, plot, notes, run:
    try:
        why = test()
        print('SKIP %s: %s' % (test.__name__, why) if why else 'ok %s' % test.__name__)
    except (AssertionError, ValueError, OSError, KeyError, IndexError, subprocess.SubprocessError,
            xml.etree.ElementTree.ParseError) as e:
        where = e.__traceback__
        while where.tb_next and where.tb_next.tb_frame.f_code.co_filename == __file__:
            where = where.tb_next
        print('FAIL %s: line %d: %s %s' % (test.__name__, where.tb_lineno, type(e).__name__,
                                         str(e)[:600].replace('\n', ' ')))
    sys.stdout.flush()
