"""Squarified treemaps: a rectangle cut into tiles of given areas, each as near to a square as its row allows.

Mark Bruls, Kees Huizing, Jarke J. van Wijk: Squarified Treemaps. In: Data Visualization 2000, Springer,
pages 33-42.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEFT, TOP, RIGHT, BOTTOM = range(4)

_TINY = 1e-30
"""The least part of the largest tile, and the least side: smaller ones would make ratios infinite."""


def squarify(sizes: npt.ArrayLike, left: float, top: float, width: float, height: float) -> Floats:
    """Cut a rectangle into one tile per size, with areas proportional to the sizes.

    Returns rows of left, top, right and bottom in the order of `sizes`; the largest tile lies at left and
    top. What has no positive size gets no tile: a row of NaN.

    >>> squarify([3, 0, 1], 0, 0, 4, 1)[:, [LEFT, RIGHT]].tolist()
    [[0.0, 3.0], [nan, nan], [3.0, 4.0]]
    """
    wanted = np.asarray(sizes, dtype=np.float64).ravel()
    tiles = np.full((len(wanted), 4), np.nan)
    usable = np.flatnonzero(np.isfinite(wanted) & (wanted > 0))
    if len(usable) and width > 0 and height > 0:
        order = usable[np.argsort(-wanted[usable], kind="stable")]
        share = np.maximum(wanted[order] / wanted[order[0]], _TINY)
        areas = share * (width * height / share.sum())
        tiles[order] = _cut(areas.tolist(), left, top, left + width, top + height)
    return tiles


def _cut(areas: list[float], left: float, top: float, right: float, bottom: float) -> list[tuple[float, ...]]:
    # Floats in lists, one pass: on rows of some five tiles this is three times as fast as numpy.
    tiles: list[tuple[float, ...]] = []
    start = 0
    while start < len(areas):
        room_x, room_y = right - left, bottom - top
        side = max(min(room_x, room_y), _TINY)
        stop, total = _row(areas, start, side)
        last = stop == len(areas)
        upright = room_x >= room_y
        # The last row takes what is left, the last tile of a row ends where the row ends: no seams.
        depth = total / side
        edge = min(left + depth, right) if upright else min(top + depth, bottom)
        if last:
            edge = right if upright else bottom
        begin, end = (top, bottom) if upright else (left, right)
        done, near = 0.0, begin
        for i in range(start, stop):
            done += areas[i]
            far = end if i == stop - 1 else min(begin + done / total * (end - begin), end)
            tiles.append((left, near, edge, far) if upright else (near, top, far, edge))
            near = far
        left, top = (edge, top) if upright else (left, edge)
        start = stop
    return tiles


def _row(areas: list[float], start: int, side: float) -> tuple[int, float]:
    """Where the row that begins at `start` ends, and its total.

    A tile joins unless that makes the worst one worse; areas fall, so that is the row's first or last one.
    """
    square = side * side
    first = total = areas[start]
    worst = max(square / first, first / square)
    for i in range(start + 1, len(areas)):
        joined = total + areas[i]
        ratio = max(square * first / (joined * joined), joined * joined / (square * areas[i]))
        if ratio > worst:
            return i, total
        total, worst = joined, ratio
    return len(areas), total


def nested(
    sizes: npt.ArrayLike,
    groups: npt.ArrayLike,
    width: float,
    height: float,
    strip: float = 0.0,
    gap: float = 0.0,
) -> tuple[Floats, Floats]:
    """Cut a rectangle into groups, and each group into the tiles of its members.

    `groups` are numbers from 0. A group gets the area of its members together; `gap` is kept free between
    groups, and `strip` above the tiles of those that `has_heading`. Returns the groups' rectangles and the
    tiles, like `squarify`.
    """
    wanted, member = np.nan_to_num(np.asarray(sizes, dtype=np.float64)), np.asarray(groups, dtype=np.int64)
    frames = squarify(np.bincount(member, weights=wanted), 0.0, 0.0, width, height)
    frames += (gap / 2, gap / 2, -gap / 2, -gap / 2)
    heads = np.where(has_heading(frames, strip), strip, 0.0)
    tiles = np.full((len(wanted), 4), np.nan)
    for group in np.flatnonzero(np.isfinite(frames[:, LEFT])):
        left, top, right, bottom = frames[group].tolist()
        top += heads[group]
        inside = member == group
        tiles[inside] = squarify(wanted[inside], left, top, right - left, bottom - top)
    return frames, tiles


def has_heading(frames: Floats, strip: float) -> npt.NDArray[np.bool_]:
    """Whether a group with this rectangle has room for a heading of the height `strip`."""
    width, height = frames[:, RIGHT] - frames[:, LEFT], frames[:, BOTTOM] - frames[:, TOP]
    return (width >= 3.5 * strip) & (height >= 3 * strip) & (strip > 0)
