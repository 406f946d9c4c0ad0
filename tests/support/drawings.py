"""Digits as people draw them: skeletons in several styles, each drawn a little differently.

A drawing is a list of strokes, a stroke a list of points (x, y) with 0 to 1 across the board.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from random import Random

Point = tuple[float, float]
Stroke = list[Point]
Drawing = list[Stroke]

# Strokes in a box about 1 high, y downwards. "~" before a stroke makes a curve through its points.
STYLES: dict[int, dict[str, tuple[str, ...]]] = {
    0: {
        "oval": ("~.38,.0 .12,.2 .06,.55 .2,.92 .4,1 .6,.85 .68,.5 .6,.15 .4,.0",),
        "round": ("~.5,.0 .15,.12 .0,.5 .15,.88 .5,1 .85,.88 1,.5 .85,.12 .5,.0",),
        "narrow": ("~.3,.02 .08,.25 .05,.7 .22,.98 .42,.8 .46,.35 .32,.02",),
        "overlapping": ("~.55,.05 .3,.0 .08,.3 .08,.7 .3,1 .58,.85 .7,.45 .58,.1 .4,.0 .25,.1",),
        "clockwise": ("~.35,.0 .62,.15 .7,.5 .6,.88 .36,1 .12,.85 .04,.5 .12,.14 .35,.0",),
    },
    1: {
        "stroke": (".1,.0 .1,1",),
        "slanted": (".3,.0 .0,1",),
        "serif": (".0,.22 .22,.0 .22,1",),
        "long upstroke": (".0,.36 .3,.0 .3,1",),
        "foot": (".05,.2 .25,.0 .25,1", ".02,1 .5,1"),
    },
    2: {
        "plain": ("~.04,.25 .2,.03 .45,.0 .62,.2 .52,.48 .25,.75 .02,1", ".02,1 .7,.97"),
        "one stroke": ("~.05,.2 .28,.0 .55,.1 .58,.35 .35,.65 .04,.97 .04,.97 .35,.95 .7,.98",),
        "looped": ("~.06,.2 .3,.0 .58,.15 .52,.45 .25,.82 .06,.97 .05,.8 .25,.8 .45,.97 .72,.92",),
        "swan": ("~.08,.3 .22,.02 .5,.03 .6,.28 .4,.6 .05,.95 .3,.88 .5,.98 .72,.92",),
    },
    3: {
        "round": ("~.05,.12 .3,.0 .56,.12 .52,.36 .25,.47 .55,.58 .62,.82 .35,1 .02,.88",),
        "flat top": (".05,.0 .6,.0 .28,.4", "~.28,.4 .55,.48 .64,.72 .45,.97 .18,1 .02,.9"),
        "two bows": ("~.06,.1 .35,.0 .55,.22 .25,.46", "~.25,.46 .62,.55 .6,.88 .3,1 .02,.9"),
        "tight": ("~.1,.06 .38,.02 .52,.2 .3,.44 .22,.46 .5,.55 .6,.78 .42,.98 .08,.95",),
    },
    4: {
        "open": (".12,.0 .04,.55 .68,.52", ".55,.1 .5,1"),
        "closed": (".52,1 .52,.0 .0,.65 .75,.65",),
        "closed in two": (".5,.0 .0,.62 .72,.62", ".5,.0 .5,1"),
        "curved": ("~.1,.05 .02,.4 .2,.55 .62,.45", ".62,.05 .52,1"),
        "upright": (".0,.0 .0,.5 .6,.5", ".55,.0 .55,1"),
    },
    5: {
        "hat last": ("~.1,.02 .06,.4 .06,.4 .35,.36 .62,.6 .5,.92 .2,1 .0,.88", ".1,.02 .62,.0"),
        "one stroke": (".62,.0 .12,.02 .06,.42", "~.06,.42 .36,.36 .62,.62 .5,.93 .2,1 .0,.9"),
        "in one go": ("~.6,.02 .3,.02 .14,.04 .1,.4 .1,.4 .4,.38 .62,.65 .45,.95 .18,1 .0,.9",),
        "angular": (".6,.0 .08,.0 .08,.42 .5,.4 .6,.6 .58,.85 .4,1 .0,.98",),
    },
    6: {
        "plain": ("~.5,.0 .2,.25 .04,.65 .15,.95 .4,1 .6,.8 .5,.56 .25,.55 .08,.75",),
        "straight": ("~.45,.0 .15,.45 .04,.8 .25,1 .5,.92 .54,.68 .3,.58 .06,.75",),
        "curled": ("~.58,.08 .38,.0 .12,.25 .04,.7 .25,1 .55,.9 .56,.62 .32,.52 .08,.7",),
        "slim": ("~.3,.0 .1,.35 .03,.75 .16,.98 .36,.95 .45,.75 .33,.6 .12,.65",),
    },
    7: {
        "plain": (".0,.03 .62,.0 .25,1",),
        "bar": (".0,.03 .65,.0 .28,1", ".12,.5 .62,.48"),
        "serif": (".02,.15 .04,.02 .62,.02 .22,1",),
        "bent": ("~.0,.05 .35,.05 .6,.02 .6,.02 .42,.4 .32,.7 .3,1",),
    },
    8: {
        "s first": (
            "~.52,.1 .3,.0 .1,.15 .2,.4 .45,.55 .58,.8 .35,1 .08,.85 .15,.6 .42,.42 .55,.2 .5,.08",
        ),
        "two rings": ("~.3,.0 .1,.2 .3,.45 .5,.22 .3,.0", "~.3,.45 .04,.72 .3,1 .58,.72 .3,.45"),
        "from the middle": (
            "~.3,.48 .1,.3 .15,.05 .42,.0 .52,.2 .35,.45 .1,.65 .08,.92 .35,1 .58,.85 .48,.6 .3,.5",
        ),
        "slanted": (
            "~.6,.08 .4,.0 .22,.15 .28,.38 .46,.58 .44,.86 .2,1 .02,.84 .14,.6 .45,.38 .6,.2 .6,.1",
        ),
    },
    9: {
        "straight": ("~.5,.12 .25,.0 .05,.2 .15,.46 .4,.42 .52,.1", ".52,.1 .5,1"),
        "hook": ("~.5,.12 .25,.0 .06,.2 .16,.45 .4,.4 .52,.1 .52,.1 .54,.6 .45,.95 .2,1 .05,.88",),
        "slanted": ("~.55,.1 .3,.0 .08,.22 .2,.46 .45,.35 .55,.1", ".55,.1 .3,1"),
        "in one go": ("~.52,.15 .3,.0 .06,.18 .14,.44 .42,.36 .52,.12 .52,.12 .5,.5 .42,1",),
    },
}


@dataclass(frozen=True)
class Hand:
    """How much drawings differ; lengths are parts of the board, the others of the digit."""

    sizes: tuple[float, float] = (0.35, 0.77)
    degrees: float = 12
    wobble: float = 0.02
    stretch: float = 0.12


NEAT = Hand(degrees=3, wobble=0.004, stretch=0.04)


def draw(
    random: Random, digit: int, style: str, hand: Hand, height: float | None = None
) -> Drawing:
    """Draw a digit in a style, anywhere on the board; `height` instead of a random size."""
    strokes = [skeleton(text) for text in STYLES[digit][style]]
    turn = math.radians(random.uniform(-hand.degrees, hand.degrees))
    wide, slant = 1 + random.uniform(-1, 1) * hand.stretch, random.uniform(-1, 1) * hand.stretch
    spacing = random.choice((0.03, 0.06, 0.12))  # a fast pen leaves few points
    moved = []
    for stroke in strokes:
        points = [(x * wide - y * slant, y) for x, y in evenly(stroke, spacing)]
        points = wobbly(random, points, hand.wobble)
        moved.append(
            [
                (x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn))
                for x, y in points
            ]
        )
    (left, right), (top, bottom) = (
        (min(along), max(along))
        for along in zip(*(point for stroke in moved for point in stroke), strict=True)
    )
    size = height or random.uniform(*hand.sizes)
    scale = size / (bottom - top if height else max(right - left, bottom - top))
    margin = 0.04
    x0 = random.uniform(margin, 1 - margin - (right - left) * scale)
    y0 = random.uniform(margin, 1 - margin - (bottom - top) * scale)
    return [[((x - left) * scale + x0, (y - top) * scale + y0) for x, y in s] for s in moved]


def with_tick(random: Random, drawing: Drawing) -> Drawing:
    """Add a short stray stroke in a corner of the board, away from the digit."""
    points = [point for stroke in drawing for point in stroke]
    corners = [(x, y) for x in (0.05, 0.95) for y in (0.05, 0.95)]
    x, y = max(corners, key=lambda corner: min(math.dist(corner, point) for point in points))
    angle, length = random.uniform(0, math.tau), random.uniform(0.01, 0.05)
    tick = [(x, y), (x + length * math.cos(angle), y + length * math.sin(angle))]
    return [*drawing, tick] if random.random() < 0.5 else [tick, *drawing]


def some(
    seed: int, hand: Hand | None = None, height: float | None = None, tick: bool = False
) -> list[tuple[int, Drawing]]:
    """Return digits and their drawings, twenty a digit: each style the same number of times."""
    random, made = Random(seed), []
    for digit, styles in STYLES.items():
        for at in range(20):
            drawing = draw(random, digit, list(styles)[at % len(styles)], hand or Hand(), height)
            made.append((digit, with_tick(random, drawing) if tick else drawing))
    return made


def skeleton(text: str) -> list[Point]:
    corners = [tuple(map(float, pair.split(","))) for pair in text.lstrip("~").split()]
    return curve(corners) if text.startswith("~") else corners


def curve(points: list[Point], parts: int = 8) -> list[Point]:
    """Run a Catmull-Rom spline through the points; a point given twice is a corner."""
    ends = [points[0], *points, points[-1]]
    line = [points[0]]
    for at in range(len(points) - 1):
        p0, p1, p2, p3 = ends[at : at + 4]
        for part in range(1, parts + 1):
            t = part / parts
            line.append(
                tuple(
                    0.5
                    * (
                        2 * b
                        + (c - a) * t
                        + (2 * a - 5 * b + 4 * c - d) * t**2
                        + (3 * b - a - 3 * c + d) * t**3
                    )
                    for a, b, c, d in zip(p0, p1, p2, p3, strict=True)
                )
            )
    return line


def evenly(points: list[Point], spacing: float) -> list[Point]:
    """Return points along a line at about equal distances, its corners of 30 degrees included."""
    kept = [points[0]]
    for at, (before, point) in enumerate(pairwise(points), start=1):
        steps = max(1, round(math.dist(before, point) / spacing))
        for step in range(1, steps + 1):
            t = step / steps
            new = tuple(b + (p - b) * t for b, p in zip(before, point, strict=True))
            is_end = step == steps and (at == len(points) - 1 or is_corner(points, at))
            if is_end or math.dist(new, kept[-1]) >= spacing * 0.99:
                kept.append(new)
    return kept


def is_corner(points: list[Point], at: int) -> bool:
    (x0, y0), (x1, y1), (x2, y2) = points[at - 1 : at + 2]
    turn = math.atan2(y2 - y1, x2 - x1) - math.atan2(y1 - y0, x1 - x0)
    return math.cos(turn) < math.cos(math.radians(30))


def wobbly(random: Random, points: list[Point], most: float) -> list[Point]:
    """Move the points by a smooth random offset, as an unsteady hand does."""
    waves = [
        (random.uniform(0, math.tau), random.uniform(2, 9), random.uniform(0, most))
        for _ in range(4)
    ]
    moved = []
    along = 0.0
    for at, (x, y) in enumerate(points):
        along += math.dist(points[at - 1], (x, y)) if at else 0
        dx, dy, du, dv = (size * math.sin(start + along * speed) for start, speed, size in waves)
        moved.append((x + dx + du / 2, y + dy + dv / 2))
    return moved
