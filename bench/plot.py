#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Draws what `balun bench --json 'far_*'` printed: one SVG on standard output.

Usage: balun bench --json 'far_*' | tee far.json | bench/plot.py >far.svg

One row for each program and working set, one column for each device. The bar is the kernel's time
over Balun's: to the right of the line, on which both take the same, Balun is faster.
"""
import json
import math
import sys

ROW, LABEL, WIDTH, GAP, TOP = 14, 130, 300, 40, 58
LEAST, MOST = 1 / 8, 16


def x_of(ratio):
    ratio = min(max(ratio, LEAST), MOST)
    return WIDTH * math.log(ratio / LEAST) / math.log(MOST / LEAST)


def read(lines):
    """{device: {(pattern, times): (factor or None, text)}}, patterns in the order of the report"""
    found, order = {}, []
    for line in lines:
        result = json.loads(line)
        name = result["bench"].split("_")
        if name[0] != "far" or len(name) < 4:
            continue
        device, pattern, times = name[1], "_".join(name[2:-1]), name[-1]
        if (pattern, times) not in order:
            order.append((pattern, times))
        factor = 1 / result["ratio"] if "ratio" in result else None
        why = "skipped" if "skipped" in result else "failed"
        found.setdefault(device, {})[pattern, times] = (factor, why)
    return found, order


def draw_device(index, device, rows, order):
    x = LABEL + index * (WIDTH + GAP)
    bottom = TOP + ROW * len(order)
    kernel = "zram" if device == "lz4" else "a file"
    yield f'<text x="{x}" y="20" class="head">balun run, {device}: times faster than swap on {kernel}</text>'
    for tick in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16):
        at = x + x_of(tick)
        text = f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}"
        yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 6}" y2="{bottom}" class="{"one" if tick == 1 else "tick"}"/>'
        yield f'<text x="{at:.1f}" y="{TOP - 12}" class="mid">{text}</text>'
    for row, key in enumerate(order):
        y = TOP + row * ROW
        factor, why = rows.get(key, (None, "not run"))
        if factor is None:
            yield f'<text x="{x + x_of(1) + 4:.1f}" y="{y + 10}">{why}</text>'
            continue
        left, right = sorted((x_of(1), x_of(factor)))
        kind = "faster" if factor >= 1 else "slower"
        yield f'<rect x="{x + left:.1f}" y="{y + 2}" width="{right - left:.1f}" height="{ROW - 4}" class="{kind}"/>'
        yield f'<text x="{x + right + 3:.1f}" y="{y + 11}">{factor:.2f}</text>'


def draw(found, order):
    width = LABEL + len(found) * (WIDTH + GAP)
    height = TOP + ROW * len(order) + 10
    yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="10">'
    yield "<style>.head{font-size:12px;font-weight:bold}.mid{text-anchor:middle}.tick{stroke:#ddd}.one{stroke:#000}"
    yield ".faster{fill:#2a7}.slower{fill:#c43}</style>"
    yield f'<rect width="{width}" height="{height}" fill="#fff"/>'
    for row, (pattern, times) in enumerate(order):
        yield f'<text x="8" y="{TOP + row * ROW + 11}">{pattern}, {times}</text>'
    for index, device in enumerate(sorted(found, reverse=True)):
        yield from draw_device(index, device, found[device], order)
    yield "</svg>"


def main():
    found, order = read(sys.stdin)
    if not order:
        sys.exit("plot.py: no far_* bench in the input")
    print("\n".join(draw(found, order)))


main()
