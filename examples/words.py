#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Which words do this machine's own documents use, and together with which?

Reads documentation, package lists, manuals and headers until it has so much text, keeps every
document as lines of words, and goes over all of them three times: how often each word occurs and in
how many documents, what is typical of a document, which words stand beside each other. An ordinary
program that knows nothing of Balun and wants some 500 MiB of memory; the same files give the same
output.

usage: words.py [MIB]     MIB of text (default 44)
"""

import collections
import gc
import gzip
import hashlib
import math
import os
import sys
import time

ROOTS = (
    "/usr/share/doc",
    "/var/lib/dpkg/info",
    "/usr/share/man",
    "/usr/include",
    "/usr/share/perl",
    "/usr/share/perl5",
    "/usr/lib/python3",
    "/usr/lib/python3.11",
    "/usr/lib/gcc",
    "/usr/share",
)
FRAME = "\"'`()[]{}<>.,:;!?*#=-_/\\|$%&+~^@"

started = time.monotonic()


def progress(what):
    """on a terminal, once it takes longer than two seconds; None: the line is done"""
    if not sys.stderr.isatty() or time.monotonic() - started < 2:
        return
    sys.stderr.write("\r\x1b[K" + (f"words.py: {what} ..." if what else ""))
    sys.stderr.flush()


def files():
    """regular files, in the same order each time, none twice"""
    seen = set()
    for root in ROOTS:
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                if path not in seen and os.path.isfile(path) and not os.path.islink(path):
                    seen.add(path)
                    yield path


def text(path):
    """what is in a file, or nothing if that is no text"""
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
            data = f.read(8 << 20)
    except (OSError, EOFError):
        return ""
    return "" if b"\0" in data else data.decode("utf-8", "replace")


def read(want):
    """documents, each a path and its lines of words, and the bytes of text in them"""
    documents, have = [], 0
    for path in files():
        if have >= want:
            break
        lines = [line.split() for line in text(path).splitlines()]
        if not lines:
            continue
        documents.append((path, lines))
        have += sum(len(w) + 1 for line in lines for w in line)
        progress(f"reading: {have >> 20} of {want >> 20} MiB")
    return documents, have


def plain(word):
    """as it counts: without what frames it, small letters; "" if it is no word"""
    word = word.strip(FRAME).lower()
    return word if word.isalpha() else ""


def count(documents):
    """how often each word occurs, and in how many documents"""
    often, where = collections.Counter(), collections.Counter()
    for i, (_, lines) in enumerate(documents):
        here = collections.Counter(plain(word) for line in lines for word in line)
        often.update(here)
        where.update(here.keys())
        progress(f"counting: document {i} of {len(documents)}")
    del often[""], where[""]
    return often, where


def by_number(item):
    """largest first, and the same order each time"""
    return -item[1], item[0]


def typical(documents, often, where):
    """of each document the word that it uses more than others do; those most used as such"""
    words = collections.Counter()
    for i, (_, lines) in enumerate(documents):
        here = collections.Counter(plain(word) for line in lines for word in line)
        del here[""]
        weight = {w: round(n * math.log(len(documents) / where[w]), 6) for w, n in here.items()
                  if len(w) > 3 and often[w] > n}
        if weight:
            words[min(weight.items(), key=by_number)[0]] += 1
        progress(f"weighing: document {i} of {len(documents)}")
    return sorted(words.items(), key=by_number)[:20]


def neighbours(documents, chosen):
    """which words follow these; and a number that every word of every document changes"""
    after = {word: collections.Counter() for word in chosen}
    digest = hashlib.sha256()
    for i, (path, lines) in enumerate(documents):
        digest.update(path.encode("utf-8", "surrogateescape"))
        for line in lines:
            digest.update(" ".join(line).encode("utf-8", "replace"))
            before = ""
            for word in line:
                word = plain(word)
                if before in after and word:
                    after[before][word] += 1
                before = word
        progress(f"pairing: document {i} of {len(documents)}")
    return after, digest.hexdigest()


def main():
    # no cycles here: nothing that the collector could find
    gc.disable()
    try:
        want = int(sys.argv[1]) << 20 if len(sys.argv) == 2 else 44 << 20
    except ValueError:
        sys.exit(__doc__.rstrip())
    documents, have = read(want)
    if have < want:
        print(f"words.py: only {have >> 20} MiB of text on this machine", file=sys.stderr)
    often, where = count(documents)
    words = sum(often.values())
    print(f"{len(documents)} documents, {sum(len(lines) for _, lines in documents)} lines,", end=" ")
    print(f"{words} words, {len(often)} different ones")
    print("\nwhat documents are about, by how many of them:")
    chosen = typical(documents, often, where)
    print("  " + ", ".join(f"{word} {n}" for word, n in chosen))
    print("\nand what follows these words:")
    after, digest = neighbours(documents, [word for word, _ in chosen])
    for word, _ in chosen[:10]:
        follow = sorted(after[word].items(), key=by_number)[:5]
        print(f"  {word:16} " + ", ".join(f"{w} {n}" for w, n in follow))
    print(f"\nall of it: {digest}")
    progress(None)


main()
