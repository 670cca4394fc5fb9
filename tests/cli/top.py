# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""balun top of running processes: tests/cli/top.sh.

top.py BALUN TARGET   both are paths; prints "ok NAME", "FAIL NAME: why" or "SKIP NAME: why"
"""
import contextlib
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import time

BALUN, TARGET = sys.argv[1:3]
MIB = 1 << 20
ROOT = os.geteuid() == 0


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
    """tests/live/target.c, running"""

    def __init__(self, *args):
        self.p = subprocess.Popen([TARGET, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  text=True, bufsize=1)
        self.pid = int(self.answer().split()[1])

    def __del__(self):
        if self.p.poll() is None:  # its test has failed, and it may be stopped
            self.p.kill()

    def answer(self):
        with within('an answer of the program'):
            return self.p.stdout.readline().strip()

    def ask(self, line):
        self.p.stdin.write(line + '\n')
        return self.answer()

    def stop(self):
        self.p.stdin.close()
        with within('the end of the program'):
            self.p.wait()
        self.p.stdout.close()


def top(*args, before=()):
    return subprocess.run([*before, BALUN, 'top', *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=60, stdin=subprocess.DEVNULL)


def spaces(*args, code=0):
    r = top('--once', '--json', *args)
    assert r.returncode == code and not r.stderr, (r.returncode, r.stderr)
    return json.loads(r.stdout)['spaces']


def one(pid, *args):
    s = spaces(*args, str(pid))
    assert len(s) == 1 and s[0]['pid'] == pid, s
    return s[0]


def both(t):
    """its own counters and what it shows, while nothing moves: reading ahead goes on after a touch"""
    with within('a moment when nothing moves'):
        after = t.ask('stats')
        before = None
        while before != after:
            before, s, after = after, one(t.pid), t.ask('stats')
    return json.loads(after), s


def figures():
    """what it shows is what the process counts"""
    t = Target('lz4', '32')
    assert t.ask('out 32') == 'ok' and t.ask('in 12') == 'ok'
    own, s = both(t)
    for way in 'to_device', 'to_system', 'device_to_device':
        assert s['moved'][way] == own[way], (way, s['moved'][way], own[way])
    for what in 'cpu_faults', 'evictions', 'device_faults', 'invalidations':
        assert s[what] == own[what], what
    assert s['moved']['to_device']['user'] == 32 * MIB
    d = s['devices'][0]
    assert (d['name'], d['used'], d['total'], d['lost']) == ('lz4', own['used'], own['total'], False), d
    assert 0 < d['footprint'] < d['used'], d  # it is compressible
    assert s['away'] == own['used'] and s['resident'] > 12 * MIB
    assert s['name'] == 'target' and s['engine'] == 'uffd' and s['policy'] == 'default'
    f = s['cpu_fault']
    assert f['count'] == own['cpu_faults'] > 0
    assert 0 < f['p50_ns'] <= f['p99_ns'] <= f['p99_9_ns'], f
    h = s['hottest']
    assert h and h[0]['len'] >= 32 * MIB and h[0]['heat'] > 0, h
    text = top('--once', str(t.pid)).stdout
    for word in 'target', 'RESIDENT', 'lz4', 'takes', 'user', 'cpu-fault', 'hottest':
        assert word in text, (word, text)
    # a driver that does not say has none
    t.stop()
    t = Target('ram', '8')
    assert one(t.pid)['devices'][0]['footprint'] is None
    t.stop()


def rates():
    """between two looks: what moved in that time, and not before"""
    t = Target('ram', '32')
    assert t.ask('out 16') == 'ok'
    p = subprocess.Popen([BALUN, 'top', '--json', '-d', '0.3', str(t.pid)], stdout=subprocess.PIPE, text=True)
    with within('the first look'):
        first = json.loads(p.stdout.readline())['spaces'][0]
    assert first['per_second']['to_device']['user'] > 0
    assert t.ask('in 8') == 'ok'
    moved = 0
    with within('a look that shows what has moved'):
        while not moved:
            s = json.loads(p.stdout.readline())['spaces'][0]
            r = s['per_second']
            assert 0.2 < r['over_s'] < 30 and r['to_device']['user'] == 0, r
            moved = sum(r['to_system'].values())
    assert r['cpu_fault']['count'] > 0
    p.kill()
    p.wait()
    p.stdout.close()
    t.stop()


def closed():
    """a process that closes all that it does not know is seen, and goes on"""
    t = Target('ram', '8')
    # its space needs its own descriptors, so there is nothing away by then
    assert t.ask('close') == 'ok'
    assert one(t.pid)['pid'] == t.pid
    t.p.kill()
    t.stop()


def forked():
    t = Target('ram', '8')
    assert t.ask('out 8') == 'ok'
    child = int(t.ask('fork').split()[1])
    assert child != t.pid and one(child)['moved']['to_device']['user'] == 0
    with within('the end of a parent'):
        t.p.wait()
    gone(t.pid)
    assert t.ask('in 8') == 'ok'
    t.stop()


def gone(pid):
    r = top('--once', str(pid))
    assert r.returncode == 1 and r.stdout == '', r
    assert r.stderr == 'balun top: process %d: no Balun in it, or there is no such process\n' % pid, r.stderr


def ends():
    """with the space, and with the process however it ends"""
    t = Target('ram', '8')
    assert t.ask('end') == 'ok'
    gone(t.pid)
    t.stop()
    t = Target('ram', '8')
    t.p.send_signal(signal.SIGKILL)
    t.p.wait()
    gone(t.pid)
    with open('/proc/net/unix', encoding='ascii', errors='replace') as f:
        assert '-%d-' % t.pid not in f.read()
    t.stop()


def state(pid):
    with open('/proc/%d/stat' % pid, encoding='ascii', errors='replace') as f:
        return f.read().rsplit(')', 1)[1].split()[0]


def several():
    a, b = Target('ram', '8'), Target('lz4', '8')
    s = spaces(str(b.pid), str(a.pid))
    assert [x['pid'] for x in s] == sorted([a.pid, b.pid]), s
    assert {a.pid, b.pid} <= {x['pid'] for x in spaces()}
    # one that is stopped does not answer: the others do
    a.p.send_signal(signal.SIGSTOP)
    with within('the program to stop, all its threads'):
        os.waitpid(a.pid, os.WUNTRACED)
    assert b.pid in {x['pid'] for x in spaces()}
    r = top('--once', str(a.pid))
    assert r.returncode == 1 and 'does not answer' in r.stderr, r
    # nor does it matter that balun top itself is stopped and goes on, while it waits
    p = subprocess.Popen([BALUN, 'top', '--once', str(a.pid)], stderr=subprocess.PIPE, text=True)
    with within('balun top to wait, to stop, to go on, and to end'):
        while state(p.pid) != 'S':
            pass
        p.send_signal(signal.SIGSTOP)
        os.waitpid(p.pid, os.WUNTRACED)
        p.send_signal(signal.SIGCONT)
        err = p.communicate()[1]
    assert p.returncode == 1 and 'does not answer' in err, err
    a.p.send_signal(signal.SIGCONT)
    assert one(a.pid)['pid'] == a.pid
    a.stop()
    b.stop()


def none():
    """in a network of its own there is nobody"""
    before = ['unshare', '-n'] if ROOT else ['unshare', '-rn']
    if subprocess.run([*before, 'true'], stderr=subprocess.DEVNULL, check=False).returncode:
        return 'unshare -n is not allowed here'
    r = top('--once', before=before)
    assert (r.returncode, r.stdout, r.stderr) == (0, 'no process of this user has Balun\n', ''), r
    r = top('--once', '--json', before=before)
    assert (r.returncode, r.stdout) == (0, '{"version":1,"spaces":[]}\n'), r
    return None


def other_user():
    """another user's process is refused; root is not"""
    if not ROOT:
        return 'only root can be another user'
    before = ['setpriv', '--reuid', '54321', '--regid', '54321', '--clear-groups']
    if subprocess.run([*before, BALUN, '--version'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                      check=False).returncode:
        return 'another user cannot run %s' % BALUN
    t = Target('ram', '8')
    r = top('--once', str(t.pid), before=before)
    assert (r.returncode, r.stdout) == (3, ''), r
    assert r.stderr == "balun top: process %d is another user's, or may not be looked into\n" % t.pid
    r = top('--once', '--json', before=before)
    assert json.loads(r.stdout)['spaces'] == [], r
    t.stop()
    return None


def peer(connection):
    return struct.unpack('3i', connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


def squatter():
    """who takes a name that is not his is not believed"""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.bind(b'\0balun-%d-%d-1' % (os.geteuid() + 1, os.getpid()))
    s.listen(1)
    if ROOT:
        assert os.getpid() not in {x['pid'] for x in spaces()}
    s.close()
    # nor what is no answer
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.bind(b'\0balun-%d-%d-1' % (os.geteuid(), os.getpid()))
    s.listen(1)
    p = subprocess.Popen([BALUN, 'top', '--once', str(os.getpid())], stderr=subprocess.PIPE, text=True)
    with within('balun top to ask, and to end'):
        c = s.accept()[0]
        while peer(c) != p.pid:  # another balun top, that looks at all
            c.close()
            c = s.accept()[0]
        c.recv(100)
        c.send(b'\1' * 3000)
        err = p.communicate()[1]
    assert p.returncode == 3 and 'another version' in err, err
    c.close()
    s.close()


def read_until(fd, want, limit=30):
    out, end = b'', time.monotonic() + limit
    while want not in out:
        assert select.select([fd], [], [], max(0, end - time.monotonic()))[0], (want, out)
        out += os.read(fd, 65536)
    return out


def screen():
    """on a terminal: a table, keys, and the terminal as it was"""
    if b'libncurses' not in subprocess.run(['ldd', BALUN], stdout=subprocess.PIPE, check=True).stdout:
        return 'this build has no ncurses'
    a, b = Target('ram', '8'), Target('lz4', '8')
    pid, fd = pty.fork()
    if not pid:
        os.environ.update(TERM='xterm', LINES='40', COLUMNS='120')
        os.execv(BALUN, [BALUN, 'top', '-d', '0.2', str(a.pid), str(b.pid)])
    read_until(fd, b'balun top')
    os.write(fd, b'j')  # the other process
    read_until(fd, b'lz4')
    os.write(fd, b'q')
    out = b''
    with within('the end of balun top, after q'):
        try:
            while True:
                out += os.read(fd, 65536)
        except TimeoutError:
            raise
        except OSError:
            pass
        status = os.waitpid(pid, 0)[1]
    assert status == 0, status
    assert b'\x1b[?1049l' in out, out  # back to what was there before
    # one of those asked for ends: said so
    pid, fd2 = pty.fork()
    if not pid:
        os.environ.update(TERM='xterm')
        os.execv(BALUN, [BALUN, 'top', '-d', '0.2', str(a.pid)])
    read_until(fd2, b'balun top')
    a.stop()
    read_until(fd2, b'no Balun in it')
    with within('the end of balun top, after that of the program'):
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    os.close(fd)
    os.close(fd2)
    b.stop()
    return None


def run():
    """what `balun run` runs"""
    libraries = subprocess.run(['ldd', BALUN], stdout=subprocess.PIPE, check=True).stdout
    if b'libasan' in libraries or b'libtsan' in libraries:
        return 'a build with a sanitizer'
    code = 'import sys\nb=bytearray(96<<20)\nfor i in range(0,len(b),4096): b[i]=i>>12&255\n' \
           'print("up",flush=True)\nsys.stdin.readline()'
    p = subprocess.Popen([BALUN, 'run', '--quiet', '--resident', '32M', '--device', 'lz4', '--', sys.executable,
                          '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    mine = []
    with within('a program of balun run that has something away'):
        assert p.stdout.readline() == 'up\n'
        while not mine or not mine[0]['away']:
            mine = [s for s in spaces() if s['policy'] == 'run' and parent(s['pid']) == p.pid]
            assert p.poll() is None
    assert [d['name'] for d in mine[0]['devices']] == ['lz4', 'ram'], mine
    with within('the end of a program of balun run'):
        p.communicate('\n')
    return None


def parent(pid):
    try:
        with open('/proc/%d/stat' % pid, encoding='ascii', errors='replace') as f:
            return int(f.read().rsplit(')', 1)[1].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


signal.signal(signal.SIGALRM, hangs)
for test in figures, rates, closed, forked, ends, several, none, other_user, squatter, screen, run:
    try:
        why = test()
        print('SKIP %s: %s' % (test.__name__, why) if why else 'ok %s' % test.__name__)
    except (AssertionError, ValueError, OSError, KeyError, IndexError, subprocess.SubprocessError) as e:
        print('FAIL %s: line %d: %s %s' % (test.__name__, e.__traceback__.tb_next.tb_lineno if e.__traceback__.tb_next
                                         else 0, type(e).__name__, str(e)[:600].replace('\n', ' ')))
    sys.stdout.flush()
