"""Voxel grids: the common grid of several volumes, and resampling to it."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from scipy.ndimage import affine_transform

from keras_spectral.errors import DataError
from keras_spectral.neuro.reading import counted

SAME = 1e-2
"""Two positions are the same if they are closer than this share of a voxel."""


class Grid(NamedTuple):
    """Positions of voxels.

    Attributes:
        shape: Three numbers of voxels.
        affine: Float64 array `[4, 4]` from voxel indices to millimetres in RAS axes.
    """

    shape: tuple
    affine: Any


def placed(values, own, grid, space, order=1):
    """Resample values from their own grid to another one, with 0 outside their field of view.

    Args:
        values: Array `[x, y, z]`.
        own: Their `Grid`.
        grid: Another `Grid`.
        space: `"world"` or `"centre"`: how both are aligned, see `volumes.load_volumes`.
        order: Order of the spline interpolation; not used if voxels coincide.

    Returns:
        Array of the shape of `grid`.
    """
    matrix, offset, is_whole = voxel_map(own, grid, space)
    if is_whole and own.shape == grid.shape and not offset.any():
        return values
    order = 0 if is_whole else order
    # "constant" would set the last voxel to 0 for a rounding error of its position.
    return affine_transform(values, matrix, offset, grid.shape, order=order, mode="grid-constant")


def voxel_map(own, grid, space):
    """Return the map from voxels of a grid to those of a volume.

    Args:
        own: `Grid` of the volume.
        grid: Another `Grid`.
        space: As in `placed`.

    Returns:
        The tuple `(matrix [3, 3], offset [3], whether it is a shift by whole voxels)`.
    """
    if space == "world":
        to_own = np.linalg.inv(own.affine) @ grid.affine
        matrix, offset = to_own[:3, :3], to_own[:3, 3]
    else:
        scale = voxel_sizes(grid.affine) / voxel_sizes(own.affine)
        matrix = np.diag(scale)
        offset = (np.array(own.shape) - 1) / 2 - scale * (np.array(grid.shape) - 1) / 2
        # A shift by half a voxel is preferred to interpolation, which blurs all values.
        same = np.abs(scale - 1) * np.max(grid.shape) < SAME
        offset = np.where(same, np.floor(offset), offset)
    is_shift = np.abs(matrix - np.eye(3)).max() * max(grid.shape) < SAME
    if is_shift and np.abs(offset - np.rint(offset)).max() < SAME:
        return np.eye(3), np.rint(offset), True
    return matrix, offset, False


def common_grid(paths, grids, space, shape, voxel_size):
    """Return a grid that covers all volumes: their own if it is common and no other is requested.

    Args:
        paths: Paths of the volumes, for error messages.
        grids: List of their `Grid`.
        space: As in `placed`.
        shape: Three numbers of voxels, or `None`.
        voxel_size: Millimetres, one number or three, or `None`.

    Returns:
        `Grid`.

    Raises:
        DataError: If volumes do not overlap in world space.
    """
    keys = [(grid.shape, np.round(grid.affine, 3).tobytes()) for grid in grids]
    usual = grids[keys.index(Counter(keys).most_common(1)[0][0])]
    if shape is None and voxel_size is None and all(_is_same(own, usual) for own in grids):
        return usual
    sizes = np.array([voxel_sizes(own.affine) for own in grids])
    if voxel_size is None:
        voxel = np.quantile(sizes, 0.5, axis=0, method="lower")
    else:
        voxel = np.broadcast_to(voxel_size, 3).astype(float)
    if space == "world":
        return _world_grid(paths, grids, usual, shape, voxel)
    if shape is None:
        extents = sizes * [own.shape for own in grids]
        shape = np.ceil(extents.max(axis=0) / voxel - SAME)
    shape = np.array(shape, dtype=int)
    return Grid(tuple(shape.tolist()), from_matvec(np.diag(voxel), -voxel * (shape - 1) / 2))


def _world_grid(paths, grids, usual, shape, voxel):
    """Return a grid over all fields of view, whose voxels coincide with the most common grid."""
    axes = usual.affine[:3, :3] / voxel_sizes(usual.affine)
    if any(np.abs(_axes(own) - axes).max() > SAME / max(own.shape) for own in grids):
        axes = np.eye(3)
    origin = usual.affine[:3, 3]
    boxes = np.array([(_corners(own) - origin) @ np.linalg.inv(axes).T for own in grids])
    low, high = boxes.min(axis=1), boxes.max(axis=1)
    _require_overlap(paths, low, high)
    low, high = low.min(axis=0), high.max(axis=0)
    begin = low + voxel / 2  # of the first voxel's centre
    if shape is not None:
        begin = (low + high - voxel * (np.array(shape) - 1)) / 2
    is_usual = np.isclose(voxel, voxel_sizes(usual.affine), rtol=SAME / max(usual.shape))
    begin = np.where(is_usual, voxel * np.floor(begin / voxel + SAME), begin)
    if shape is None:
        shape = np.ceil((high - begin) / voxel + 0.5 - SAME)
    shape = tuple(int(length) for length in shape)
    return Grid(shape, from_matvec(axes * voxel, origin + axes @ begin))


def _axes(grid):
    return grid.affine[:3, :3] / voxel_sizes(grid.affine)


def _corners(grid):
    """Corners of the field of view in millimetres, `[8, 3]`."""
    return apply_affine(grid.affine, np.indices((2, 2, 2)).reshape(3, 8).T * grid.shape - 0.5)


def _is_same(one, other):
    if one.shape != other.shape:
        return False
    away = np.abs(_corners(one) - _corners(other)).max()
    return bool(away < SAME * voxel_sizes(other.affine).min())


def _require_overlap(paths, low, high):
    middle = np.median((low + high) / 2, axis=0)
    apart = ((low > middle) | (high < middle)).any(axis=1)
    if apart.any():
        names = [path.name for path, is_apart in zip(paths, apart, strict=True) if is_apart]
        raise DataError(
            "Volumes must lie in one space. Received: "
            f"{counted(names, 'volume')} that do not reach the middle of all. "
            'Try `space="centre"`, or volumes that are normalized to MNI space.'
        )


def described(grid):
    """Return the shape and the voxel size of a grid as text."""
    size = " x ".join(f"{length:.4g}" for length in voxel_sizes(grid.affine))
    return f"{' x '.join(map(str, grid.shape))} voxels of {size} mm"
