"""Synthetic abdomens: where each tissue lies, drawn anew for every patient.

Coordinates are millimetres in the order (x, y, z): x to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

Mask = np.ndarray
Points = np.ndarray  # (3, *shape), millimetres


class Tissue(IntEnum):
    """What a voxel is made of. The labelled organs come first and keep their value as label."""

    LIVER = 1
    SPLEEN = 2
    KIDNEYS = 3
    PANCREAS = 4
    AIR = 5
    MUSCLE = 6
    FAT = 7
    BONE = 8
    AORTA = 9
    STOMACH = 10
    BOWEL = 11


ORGANS = {"liver": Tissue.LIVER, "spleen": Tissue.SPLEEN, "kidneys": Tissue.KIDNEYS, "pancreas": Tissue.PANCREAS}


def draw_patient(rng: Generator, points: Points) -> np.ndarray:
    """Tissue of every point of one patient: (*shape) uint8.

    Patients differ in pose, body size, a smooth deformation of everything, and in place, tilt and size of each organ.
    """
    points = _into_body(rng, points)
    tissue = np.full(points.shape[1:], Tissue.AIR, np.uint8)
    x, y, _ = points
    body = np.abs(x / 96) ** 2.4 + np.abs((y - 2) / 68) ** 2.4
    tissue[body < 1] = Tissue.MUSCLE
    tissue[body < rng.uniform(0.68, 0.85)] = Tissue.FAT
    tissue[_ellipsoid(points, (0, 44, 0), (17, 15, 400))] = Tissue.BONE
    tissue[_ellipsoid(points, (6, 22, 0), (7, 7, 400))] = Tissue.AORTA
    tissue[_bowel(rng, points)] = Tissue.BOWEL
    tissue[_organ(rng, points, (30, -18, 28), (22, 20, 28), variation=0.18)] = Tissue.STOMACH
    tissue[_liver(rng, points)] = Tissue.LIVER
    tissue[_spleen(rng, points)] = Tissue.SPLEEN
    tissue[_kidneys(rng, points)] = Tissue.KIDNEYS
    _pancreas_and_duodenum(rng, points, tissue)
    return tissue


def _into_body(rng: Generator, points: Points) -> Points:
    """Scanner to body coordinates: position, tilt and size of the patient, then a smooth deformation."""
    tilt = Rotation.from_euler("xyz", rng.normal(0, 6, 3), degrees=True).as_matrix()
    matrix = tilt / np.exp(rng.normal(0, 0.07, 3))[:, None]
    moved = np.tensordot(matrix, points - rng.normal(0, 5, 3).reshape(3, 1, 1, 1), axes=1)
    coarse = np.stack([gaussian_filter(rng.standard_normal((12, 12, 12)), 1.2, mode="wrap") for _ in range(3)])
    coarse *= 6.0 / coarse.std()  # millimetres; one cell is 25 mm
    cells = moved / 25.0 + 6.0
    return moved + np.stack([map_coordinates(field, cells, order=1, mode="grid-wrap") for field in coarse])


def _ellipsoid(points: Points, center: ArrayLike, radii: ArrayLike) -> Mask:
    shape = (3, 1, 1, 1)
    offset = (points - np.reshape(center, shape)) / np.reshape(radii, shape)
    return (offset**2).sum(0) < 1


def _organ(
    rng: Generator, points: Points, center: Sequence[float], radii: Sequence[float], variation: float = 0.12
) -> Mask:
    """An ellipsoid whose place (5 mm), tilt (10 degrees) and size vary. ``variation``: of the logarithm of a radius."""
    own = _own_frame(rng, points, center)
    return _ellipsoid(own, (0, 0, 0), np.asarray(radii) * np.exp(rng.normal(0, variation, 3)))


def _own_frame(rng: Generator, points: Points, center: Sequence[float]) -> Points:
    """Coordinates around an organ's centre, which is displaced and tilted at random."""
    origin = (np.asarray(center) + rng.normal(0, 5, 3)).reshape(3, 1, 1, 1)
    tilt = Rotation.from_euler("xyz", rng.normal(0, 10, 3), degrees=True).as_matrix()
    return np.tensordot(tilt, points - origin, axes=1)


def _liver(rng: Generator, points: Points) -> Mask:
    right = _organ(rng, points, (-42, -4, 20), (36, 42, 44))
    left = _organ(rng, points, (-6, -30, 34), (40, 18, 24), variation=0.25)
    return right | left


def _spleen(rng: Generator, points: Points) -> Mask:
    """A crescent: an ellipsoid hollowed from the side of the stomach."""
    own = _own_frame(rng, points, (58, 22, 26))
    size = np.exp(rng.normal(0, 0.18))
    outside = _ellipsoid(own, (0, 0, 0), np.array((18, 27, 30)) * size)
    return outside & ~_ellipsoid(own, np.array((-20, -12, 0)) * size, np.array((18, 20, 26)) * size)


def _kidneys(rng: Generator, points: Points) -> Mask:
    """Two ellipsoids, each with a notch towards the spine."""
    both = np.zeros(points.shape[1:], bool)
    for side in (-1, 1):
        own = _own_frame(rng, points, (side * 38, 32, -16 + 6 * side))
        size = np.exp(rng.normal(0, 0.12))
        kidney = _ellipsoid(own, (0, 0, 0), np.array((15, 15, 30)) * size)
        both |= kidney & ~_ellipsoid(own, (-side * 15 * size, -4, 0), (8, 9, 10))
    return both


def _tube(points: Points, course: np.ndarray, radius: np.ndarray) -> Mask:
    """All points closer than ``radius`` (per course point, mm) to a course (N, 3) through the body."""
    steps = np.linspace(0, len(course) - 1, 12 * len(course))
    dense = np.stack([np.interp(steps, range(len(course)), c) for c in course.T], axis=1)
    radii = np.interp(steps, range(len(radius)), radius)
    distance, nearest = cKDTree(dense).query(points.reshape(3, -1).T)
    return (distance < radii[nearest]).reshape(points.shape[1:])


def _pancreas_and_duodenum(rng: Generator, points: Points, tissue: np.ndarray) -> None:
    """The small organ: across the aorta to the spleen, its head in the loop of a duodenum that looks much like it."""
    shift = rng.normal(0, 4, 3)
    jitter = rng.normal(0, 3, (5, 3))
    head_to_tail = np.array([(-20, -4, -16), (-14, -6, -4), (4, -10, 2), (24, 2, 6), (44, 12, 14)]) + jitter + shift
    duodenum = np.array([(-22, -8, 14), (-36, -2, 2), (-38, 0, -20), (-18, 2, -36), (10, 0, -34)]) + shift
    duodenum = duodenum + rng.normal(0, 3, (5, 3))
    size = np.exp(rng.normal(0, 0.12))
    organs = (Tissue.LIVER, Tissue.SPLEEN, Tissue.KIDNEYS)
    tissue[_tube(points, duodenum, np.full(5, 8.0 * size)) & ~np.isin(tissue, organs)] = Tissue.BOWEL
    pancreas = _tube(points, head_to_tail, np.array((12.5, 11.0, 9.0, 9.0, 7.5)) * size)
    tissue[pancreas & ~np.isin(tissue, organs)] = Tissue.PANCREAS


def _bowel(rng: Generator, points: Points) -> Mask:
    """Loops at random places in the front and below."""
    loops = np.zeros(points.shape[1:], bool)
    for _ in range(rng.integers(5, 9)):
        start = rng.uniform((-55, -40, -75), (60, 10, -15))
        course = start + np.cumsum(rng.normal(0, 16, (4, 3)), axis=0)
        loops |= _tube(points, course, np.full(4, rng.uniform(6, 10)))
    return loops
