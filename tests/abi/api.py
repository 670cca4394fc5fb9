# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""The public interface as the headers state it.

api.py functions   one line a BALUN_API function: HEADER NAME DOCUMENTED(0/1)
api.py ops         one line an op of struct balun_driver
api.py users       FAIL lines for functions and ops that nobody in the tree uses
"""
import glob
import re
import subprocess
import sys

COMMENT = re.compile(r'/\*.*?\*/', re.S)


def text(path):
    with open(path, encoding='utf-8') as f:
        return f.read()


def functions():
    for path in sorted(glob.glob('include/balun/*.h')):
        t = text(path)
        plain = COMMENT.sub(lambda m: re.sub(r'[^\n]', ' ', m.group(0)), t)
        for m in re.finditer(r'BALUN_API\s+[^;{(]*?\b(balun_\w+)\s*\(', plain):
            name = m.group(1)
            before = t[:m.start()].rstrip()
            doc = ''
            if before.endswith('*/'):
                doc = before[before.rfind('/*'):]
            ok = doc.startswith('/**') and name + '()' in doc
            yield path, name, ok


def ops():
    t = COMMENT.sub('', text('include/balun/driver.h'))
    body = re.search(r'struct balun_driver \{(.*?)\n\};', t, re.S).group(1)
    return re.findall(r'\(\*(\w+)\)\(', body)


def sources():
    out = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', '*.c', '*.h'],
                         stdout=subprocess.PIPE, check=True, text=True).stdout
    for path in out.split():
        try:
            yield path, re.sub(r'"(\\.|[^"\\\n])*"', '""', COMMENT.sub('', text(path)))
        except FileNotFoundError:
            pass


def is_use(line, name):
    """A line that names the function, but does not define or declare it (column 0)."""
    return re.search(r'\b%s\b' % name, line) and line[:1] in ' \t'


def users():
    src = list(sources())
    code = [(p, t) for p, t in src if not p.startswith('include/')]
    bad = 0
    for _, name, _ in functions():
        used = any(name in t and any(is_use(li, name) for li in t.split('\n')) for _, t in code)
        # the inline functions of soft.h are users of what they call
        used = used or any('include/balun/soft.h' == p and any(
            is_use(li, name) and 'BALUN_API' not in li for li in t.split('\n')) for p, t in src)
        if not used:
            print('FAIL no user in the tree: %s()' % name)
            bad += 1
    for op in ops():
        called = any(p.startswith('core/') and re.search(r'(->|\.)%s\(' % op, t) for p, t in code)
        given = any(re.search(r'\.%s = ' % op, t) for p, t in code)
        if not called:
            print('FAIL op is never called by core: %s' % op)
        if not given:
            print('FAIL op is given by no driver in the tree: %s' % op)
        bad += not called
        bad += not given
    total = len(list(functions())) + 2 * len(ops())
    print('%d passed, %d failed, 0 skipped' % (total - bad, bad))
    return bad != 0


def main():
    what = sys.argv[1]
    if what == 'functions':
        for path, name, ok in functions():
            print(path, name, int(ok))
    elif what == 'ops':
        print('\n'.join(ops()))
    elif what == 'users':
        sys.exit(users())


main()
