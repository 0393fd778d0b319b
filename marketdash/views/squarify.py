"""Squarified treemaps: rectangles of given areas, each as near to a square as its row allows.

M. Bruls, K. Huizing, J. J. van Wijk: Squarified Treemaps. Data Visualization 2000 (Proceedings of the Joint
Eurographics and IEEE TCVG Symposium on Visualization), Springer, pp. 33-42.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEFT, TOP, RIGHT, BOTTOM = range(4)


def squarify(sizes: npt.ArrayLike, left: float, top: float, width: float, height: float) -> Floats:
    """Cut a rectangle into one tile per size, areas proportional to the sizes.

    Returns rows of left, top, right, bottom in the order of `sizes`; the largest tile lies at left and
    top. What has no positive size, or no room at all, gets no tile: a row of NaN.

    >>> squarify([3, 0, 1], 0, 0, 4, 1)[:, [LEFT, RIGHT]].tolist()
    [[0.0, 3.0], [nan, nan], [3.0, 4.0]]
    """
    wanted = np.asarray(sizes, dtype=np.float64).ravel()
    tiles = np.full((len(wanted), 4), np.nan)
    usable = np.flatnonzero(np.isfinite(wanted) & (wanted > 0))
    if not len(usable) or not (width > 0 and height > 0):
        return tiles
    order = usable[np.argsort(-wanted[usable], kind="stable")]
    share = wanted[order] / wanted[order].max()
    areas = share * (width * height / share.sum())
    order, areas = order[areas > 0], areas[areas > 0]
    start, right, bottom = 0, left + width, top + height
    for stop in _rows(areas.tolist(), width, height):
        # What is left is cut along its shorter side, the last row fills it.
        row, last = areas[start:stop], stop == len(areas)
        room_x, room_y = right - left, bottom - top
        across = room_x >= room_y
        depth = row.sum() / (room_y if across else room_x)
        begin, end = (top, bottom) if across else (left, right)
        cuts = begin + np.concatenate([[0.0], np.cumsum(row)]) / row.sum() * (end - begin)
        cuts[-1] = end
        edge = (right if last else min(left + depth, right)) if across else (bottom if last else min(top + depth, bottom))
        where = order[start:stop]
        if across:
            tiles[where] = np.column_stack(np.broadcast_arrays(left, cuts[:-1], edge, cuts[1:]))
            left = edge
        else:
            tiles[where] = np.column_stack(np.broadcast_arrays(cuts[:-1], top, cuts[1:], edge))
            top = edge
        start = stop
    return tiles


def _rows(areas: list[float], width: float, height: float) -> list[int]:
    """Where each row of the falling areas ends: a tile joins while that makes the row's worst one squarer."""
    ends: list[int] = []
    side = min(width, height)
    total = worst = largest = 0.0
    for i, area in enumerate(areas):
        joined = total + area
        # In a falling row only the first and the last tile can be the worst; a ratio is compared, not kept below 1.
        ratio = max(side * side * largest / (joined * joined), joined * joined / (side * side * area))
        if total and ratio > worst:
            ends.append(i)
            if width >= height:
                width -= total / height
            else:
                height -= total / width
            side = max(min(width, height), 1e-300)
            joined, largest = area, area
            ratio = max(side * side / area, area / (side * side))
        elif not total:
            largest = area
            ratio = max(side * side / area, area / (side * side))
        total, worst = joined, ratio
    ends.append(len(areas))
    return ends
