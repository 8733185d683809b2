"""Random polygons that overlap, and a slow way to see who covers what that shares nothing with the fast one."""

from __future__ import annotations

import numpy as np
import shapely


def blobs(seed: int, count: int, size: float) -> np.ndarray:
    """Stars, rings, pairs of islands and shapes given twice, many over each other, some out of the square of `size`."""
    rng = np.random.default_rng(seed)
    shapes = []
    for number in range(count):
        corners = int(rng.integers(3, 16))
        turn = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radius = rng.uniform(0.2, 1, corners) * size * rng.choice([0.03, 0.15, 0.4])
        centre = rng.uniform(-0.1, 1.1, 2) * size
        star = shapely.Polygon(np.c_[np.cos(turn), np.sin(turn)] * radius[:, None] + centre)
        star = shapely.make_valid(star, method="structure", keep_collapsed=False)
        if number % 3 == 0:
            star = shapely.difference(star, shapely.Point(centre).buffer(radius.mean() * 0.4, quad_segs=3))
        if number % 4 == 0:
            star = shapely.union(star, shapely.box(*(centre + size / 5), *(centre + size * 0.3)))
        shapes.append(star)
    shapes = [shape for shape in shapes if shape.area > 0]
    return np.array([*shapes, shapes[0], shapes[0], shapes[-1]])


def moved(shapes: np.ndarray, x: float, y: float) -> np.ndarray:
    """The shapes somewhere else."""
    return np.asarray(shapely.transform(shapes, lambda xy: xy + np.array([x, y])))


def cover_counts(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The faces into which all outlines cut the plane, and how many of the shapes hold each."""
    lines = shapely.union_all(shapely.boundary(shapes))
    faces = np.array(shapely.polygonize(shapely.get_parts(lines)).geoms)
    inside = shapely.point_on_surface(faces)
    return faces, np.array([shapely.contains(shape, inside) for shape in shapes]).sum(axis=0)


def share_of_pixels(shapes: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The share of each pixel that lies in any of `shapes`, which must not overlap."""
    share = np.zeros(pixels.shape)
    for shape in shapes:
        near = shapely.intersects(shape, pixels)
        share[near] += shapely.area(shapely.intersection(shape, pixels[near])) / shapely.area(pixels[near])
    return share
