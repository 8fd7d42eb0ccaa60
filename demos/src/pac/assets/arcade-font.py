#!/usr/bin/env python3
"""Draws the small pixel font of the demo's pages: `arcade-font.py arcade.woff2`.

The letters below are this project's own. Run it again only to add a letter; it
needs `fonttools` and `brotli`. The same input gives the same file.
"""
import re
import sys

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

# One line a row, seven rows a letter; the wanted letters stand above each band.
BANDS = """
A      B      C      D      E      F      G      H      I      J      K      L
.###.  ####.  .####  ####.  #####  #####  .####  #...#  .###.  ..###  #...#  #....
#...#  #...#  #....  #...#  #....  #....  #....  #...#  ..#..  ...#.  #..#.  #....
#...#  #...#  #....  #...#  #....  #....  #....  #...#  ..#..  ...#.  #.#..  #....
#####  ####.  #....  #...#  ####.  ####.  #.###  #####  ..#..  ...#.  ##...  #....
#...#  #...#  #....  #...#  #....  #....  #...#  #...#  ..#..  ...#.  #.#..  #....
#...#  #...#  #....  #...#  #....  #....  #...#  #...#  ..#..  #..#.  #..#.  #....
#...#  ####.  .####  ####.  #####  #....  .####  #...#  .###.  .##..  #...#  #####

M      N      O      P      Q      R      S      T      U      V      W      X
#...#  #...#  .###.  ####.  .###.  ####.  .####  #####  #...#  #...#  #...#  #...#
##.##  ##..#  #...#  #...#  #...#  #...#  #....  ..#..  #...#  #...#  #...#  #...#
#.#.#  ##..#  #...#  #...#  #...#  #...#  #....  ..#..  #...#  #...#  #...#  .#.#.
#.#.#  #.#.#  #...#  ####.  #...#  ####.  .###.  ..#..  #...#  #...#  #.#.#  ..#..
#...#  #..##  #...#  #....  #.#.#  #.#..  ....#  ..#..  #...#  .#.#.  #.#.#  .#.#.
#...#  #..##  #...#  #....  #..#.  #..#.  ....#  ..#..  #...#  .#.#.  ##.##  #...#
#...#  #...#  .###.  #....  .##.#  #...#  ####.  ..#..  .###.  ..#..  #...#  #...#

Y      Z      0      1      2      3      4      5      6      7      8      9
#...#  #####  .###.  ..#..  .###.  ####.  ...#.  #####  .###.  #####  .###.  .###.
#...#  ....#  #...#  .##..  #...#  ....#  ..##.  #....  #....  ....#  #...#  #...#
.#.#.  ...#.  #...#  ..#..  ....#  ....#  .#.#.  ####.  #....  ...#.  #...#  #...#
..#..  ..#..  #...#  ..#..  ..##.  .###.  #..#.  ....#  ####.  ..#..  .###.  .####
..#..  .#...  #...#  ..#..  .#...  ....#  #####  ....#  #...#  ..#..  #...#  ....#
..#..  #....  #...#  ..#..  #....  ....#  ...#.  #...#  #...#  .#...  #...#  ....#
..#..  #####  .###.  #####  #####  ####.  ...#.  .###.  .###.  .#...  .###.  .###.

.      ,      :      ;      -      +      !      ?      /      '      (      )
.....  .....  .....  .....  .....  .....  ..#..  .###.  ....#  ..#..  ...#.  .#...
.....  .....  .....  .....  .....  ..#..  ..#..  #...#  ....#  ..#..  ..#..  ..#..
.....  .....  ..#..  ..#..  .....  ..#..  ..#..  ....#  ...#.  .....  .#...  ...#.
.....  .....  .....  .....  .###.  #####  ..#..  ...#.  ..#..  .....  .#...  ...#.
.....  .....  .....  .....  .....  ..#..  ..#..  ..#..  .#...  .....  .#...  ...#.
.....  ..#..  ..#..  ..#..  .....  ..#..  .....  .....  #....  .....  ..#..  ..#..
..#..  .#...  .....  .#...  .....  .....  ..#..  ..#..  #....  .....  ...#.  .#...

_      =      %      #      &      "      *      ×      ·      …      <      >
.....  .....  ##..#  .#.#.  .##..  .#.#.  .....  .....  .....  .....  ...#.  .#...
.....  .....  ##.#.  .#.#.  #..#.  .#.#.  #.#.#  .....  .....  .....  ..#..  ..#..
.....  #####  ...#.  #####  #.#..  .....  .###.  #...#  .....  .....  .#...  ...#.
.....  .....  ..#..  .#.#.  .#...  .....  #####  .#.#.  ..#..  .....  #....  ....#
.....  #####  .#...  #####  #.#.#  .....  .###.  ..#..  .....  .....  .#...  ...#.
.....  .....  .#.##  .#.#.  #..#.  .....  #.#.#  .#.#.  .....  .....  ..#..  ..#..
#####  .....  #..##  .#.#.  .##.#  .....  .....  #...#  .....  #.#.#  ...#.  .#...
"""

PIXEL = 100


def letters():
    for band in BANDS.strip().split("\n\n"):
        names, *rows = [line.split() for line in band.splitlines()]
        assert len(rows) == 7
        for at, name in enumerate(names):
            yield name, [row[at] for row in rows]


def outline(rows):
    """Every run of pixels is a rectangle; those across and those down overlap, so no seam shows."""
    pen = TTGlyphPen(None)

    def rectangle(left, bottom, right, top):
        pen.moveTo((left * PIXEL, bottom * PIXEL))
        for x, y in ((left, top), (right, top), (right, bottom)):
            pen.lineTo((x * PIXEL, y * PIXEL))
        pen.closePath()

    for line, row in enumerate(rows):
        for run in re.finditer("#+", row):
            rectangle(run.start(), 6 - line, run.end(), 7 - line)
    for at, column in enumerate(zip(*rows)):
        for run in re.finditer("##+", "".join(column)):
            rectangle(at, 7 - run.end(), at + 1, 7 - run.start())
    return pen.glyph()


def narrow(rows):
    """Cuts the empty columns of I and of the punctuation."""
    used = [any(row[at] == "#" for row in rows) for at in range(5)]
    first, last = used.index(True), 5 - used[::-1].index(True)
    return [row[first:last] for row in rows]


glyphs = {".notdef": outline(["#####"] * 7), "space": TTGlyphPen(None).glyph()}
cmap = {0x20: "space", 0xA0: "space"}
widths = {".notdef": 6 * PIXEL, "space": 4 * PIXEL}
for letter, rows in letters():
    name = f"u{ord(letter):04X}"
    rows = narrow(rows)
    glyphs[name] = outline(rows)
    widths[name] = (len(rows[0]) + 1) * PIXEL
    cmap[ord(letter)] = cmap[ord(letter.lower())] = name

font = FontBuilder(8 * PIXEL, isTTF=True)
font.setupGlyphOrder(list(glyphs))
font.setupCharacterMap(cmap)
font.setupGlyf(glyphs)
font.setupHorizontalMetrics({name: (width, 0) for name, width in widths.items()})
font.setupHorizontalHeader(ascent=7 * PIXEL, descent=-PIXEL)
font.setupNameTable({"familyName": "Arcade Dots", "styleName": "Regular"})
font.setupOS2(sTypoAscender=7 * PIXEL, sTypoDescender=-PIXEL, usWinAscent=7 * PIXEL, usWinDescent=PIXEL)
font.setupPost()
font.updateHead(created=0, modified=0)
font.font.recalcTimestamp = False
font.font.flavor = "woff2"
font.save(sys.argv[1])
