"""The voxels of one volume or mask, on the grid that all have in common.

Letters: `x`, `y`, `z` voxel to the right, to the front and up.
"""

import numpy as np

from keras_spectral.errors import DataError
from keras_spectral.neuro.grids import placed
from keras_spectral.neuro.nifti import read_volume

FLAT = 1e-6
"""A volume is constant if it varies by less than this share of its largest value."""


def volume_on_grid(path, volumes):
    """Read a volume, and place, mask and normalize it.

    Args:
        path: NIfTI file.
        volumes: `Volumes`, for the grid, the mask and whether to normalize.

    Returns:
        `(float32 array [x, y, z], whether a voxel was NaN)`.

    Raises:
        DataError: If the volume is constant, infinite, or NaN within the mask.
    """
    values, own = read_volume(path)
    values, has_nan = _numbers(path, values, own, volumes)
    _require_variation(path, values, "")
    values = placed(values, own, volumes.grid, volumes.space)
    if volumes.mask is not None:
        values[~volumes.mask] = 0
    if volumes.normalize:
        inside = values != 0 if volumes.mask is None else volumes.mask
        some = values[inside]
        _require_variation(path, some, " over the voxels to normalize")
        values[inside] = (some - some.mean(dtype=np.float64)) / some.std(dtype=np.float64)
    return values, has_nan


def _require_variation(path, values, where):
    if not values.size or np.ptp(values) <= FLAT * np.abs(values).max():
        raise DataError(
            f"Every volume must vary{where}. "
            f"Received: {path}, which is constant{where}. "
            + ("Try another mask, or `normalize=False`." if where else "Try without that subject.")
        )


def _numbers(path, values, own, volumes):
    missing = np.isnan(values)
    if np.isinf(values).any():
        raise DataError(
            "Voxels must be finite numbers. "
            f"Received: {path}, with {np.isinf(values).sum()} that are infinite."
        )
    if not missing.any():
        return values, False
    if volumes.mask is not None:
        gaps = placed(missing.astype(np.float32), own, volumes.grid, volumes.space)
        n = int((gaps[volumes.mask] > FLAT).sum())
        if n:
            raise DataError(
                "Voxels of the mask must be numbers. "
                f"Received: {path}, where {n} of {volumes.mask.sum()} are NaN. "
                "Try a mask that all subjects share, see `nilearn.masking.intersect_masks`."
            )
    values[missing] = 0
    return values, True


def mask_on_grid(path, grid, space):
    """Read a mask, and place it.

    Args:
        path: NIfTI file of whole numbers, 0 outside.
        grid: `Grid` of the volumes.
        space: As in `Volumes`.

    Returns:
        Boolean array `[x, y, z]`.

    Raises:
        DataError: If it holds fractions, or nothing on the grid.
    """
    values, own = read_volume(path)
    values = np.nan_to_num(values)
    if (values != np.rint(values)).any():
        raise DataError(
            f"`mask` must hold whole numbers, 0 outside. Received: {path}, with fractions. "
            "Try a threshold: `nilearn.image.math_img('img > 0.5', img=…)`."
        )
    inside = placed((values != 0).astype(np.float32), own, grid, space, order=0) > 0
    if not inside.any():
        raise DataError(
            "`mask` must have voxels on the grid of the volumes that are not 0. "
            f"Received: {path}, with none there. Try a mask in the same space."
        )
    return inside
