"""Brain volumes in NIfTI files, resampled to one grid, and read from disk one at a time.

Letters: `n` subject, `x`, `y`, `z` voxel to the right, to the front and up.
"""

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_spectral.errors import DataError
from keras_spectral.neuro.grids import Grid, common_grid, described, voxel_map
from keras_spectral.neuro.nifti import header, orientations
from keras_spectral.neuro.reading import SHOWN, counted
from keras_spectral.neuro.subjects import files_of, matched, phenotype_table, with_target
from keras_spectral.neuro.voxels import mask_on_grid, volume_on_grid

SUFFIXES = (".nii", ".nii.gz")
"""Files with the volume of one subject."""
BIDS_ANATOMY = "sub-*/**/anat/*_T1w.nii*"
"""Pattern of the volumes in a BIDS folder."""
REPORT_AFTER = 2.0
"""Seconds of reading after which the remaining time is printed."""


@dataclass(frozen=True, eq=False)
class Volumes:
    """Volumes on disk, on one grid; only their paths and the mask are in memory.

    When a volume is accessed, it is read, reoriented to RAS axes, resampled if its own grid differs
    (linear interpolation, zeros outside its field of view), masked and normalized.

    Attributes:
        paths: Path of each subject's file.
        grid: The common `Grid`.
        space: `"world"` or `"centre"`: how volumes are aligned, see `load_volumes`.
        mask: Boolean array `[x, y, z]`, or `None`.
        normalize: Whether each volume has mean 0 and standard deviation 1 over the voxels of the
            mask, or those that are not 0 if there is none.
    """

    paths: tuple
    grid: Grid
    space: str = "world"
    mask: Any = None
    normalize: bool = True

    @property
    def shape(self):
        """Shape of the array of all volumes: `(n, x, y, z, 1)`."""
        return (len(self), *self.grid.shape, 1)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, indices):
        chosen = np.atleast_1d(np.arange(len(self))[indices])
        return replace(self, paths=tuple(self.paths[k] for k in chosen))

    def one(self, index):
        """Read one volume.

        Args:
            index: Index of the volume.

        Returns:
            Float32 array `[x, y, z, 1]`.
        """
        return volume_on_grid(self.paths[index], self)[0][..., None]

    def array(self):
        """Read all volumes into memory; for small sets, such as `volumes[:8].array()`.

        Returns:
            Float32 array `[n, x, y, z, 1]`.
        """
        values = np.empty(self.shape, dtype=np.float32)
        for index in range(len(self)):
            values[index] = self.one(index)
        return values

    def dataset(self):
        """Return a dataset that reads volumes when they are needed, in order.

        Returns:
            `tf.data.Dataset` of float32 tensors `[x, y, z, 1]`, neither batched nor shuffled. Up
            to one volume per processor core is in memory.
        """
        import tensorflow as tf  # slow to load

        indices = tf.data.Dataset.range(len(self))
        return indices.map(self.tensor, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def tensor(self, index):
        """Read one volume in a TensorFlow graph, such as the `map` of a dataset of indices.

        Args:
            index: Scalar integer tensor.

        Returns:
            Float32 tensor `[x, y, z, 1]`.
        """
        import tensorflow as tf  # slow to load

        volume = tf.numpy_function(self.one, [index], tf.float32)
        return tf.ensure_shape(volume, self.shape[1:])


def load_volumes(
    source,
    phenotype,
    target,
    id_column="",
    *,
    where=None,
    join="exact",
    pattern=None,
    space="world",
    grid=None,
    voxel_size=None,
    mask=None,
    normalize=True,
):
    """Load volumes and the phenotype of the same subjects.

    Every file is read once to check it. If all volumes have the same grid in RAS axes and no other
    is requested, nothing is resampled.

    Args:
        source: Folder, or a path with `*`, of `.nii` or `.nii.gz` files with one volume each. Of a
            BIDS folder the T1-weighted images are taken, `sub-*/anat/*_T1w.nii.gz`. If several
            files have the same name, the names of their folders are the subjects.
        phenotype: Path of a table with one row per subject, as `participants.tsv`, or a DataFrame.
        target: Column of the phenotype to predict.
        id_column: Column of the ids; `""` is the first one.
        where: Dictionary from column to the value, or values, of the subjects to keep.
        join: `"exact"`: every subject must have a volume, and every volume a subject. `"inner"`:
            keep the subjects that have both.
        pattern: Regular expression whose first group is the id in a file's name; `None` finds the
            id by itself, see `subjects.found_for`.
        space: How volumes are aligned. `"world"`: by the coordinates of their affines, as after
            normalization to MNI space. `"centre"`: by the centres of their fields of view and the
            directions of their axes, as for crops.
        grid: Three numbers of voxels of the common grid, which is centred on all fields of view;
            `None`: as many as cover all of them.
        voxel_size: Voxel size of the common grid in millimetres, one number or three; `None`: the
            median of the volumes, the smaller of two middle ones. Coarser voxels have the values at
            their centres: nothing is smoothed.
        mask: Path of a volume of whole numbers in the same space; volumes are set to 0 where it is
            0.
        normalize: Standardise each volume to mean 0 and standard deviation 1 over the voxels of the
            mask, or the voxels that are not 0 if there is none; other voxels are 0. No statistics
            of other subjects are used.

    Returns:
        `Subjects` with `x` a `Volumes`. The report says how many volumes were reoriented, padded,
        cropped or resampled, and in which NaN voxels were set to 0.

    Raises:
        DataError: If a file cannot be read, or files and phenotype do not fit.

    Example:
        >>> import tempfile
        >>> import nibabel
        >>> import pandas as pd
        >>> table = pd.DataFrame({"id": ["a", "b"], "group": ["HC", "SZ"]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in table["id"]:
        ...         values = np.random.default_rng(0).normal(size=(4, 5, 6)).astype("float32")
        ...         nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), f"{folder}/{name}.nii")
        ...     volumes, y, phenotype = load_volumes(f"{folder}/*.nii", table, "group")
        *.nii: 2 volumes; joined 2 subjects, 4 x 5 x 6 voxels of 1 x 1 x 1 mm; dropped nothing;
        group: HC 1, SZ 1
        >>> volumes.shape
        (2, 4, 5, 6, 1)
    """
    _require_options(space, grid, voxel_size)
    all_subjects, _ = phenotype_table(phenotype, id_column)
    files = _files(source)
    table, indices, dropped = matched(all_subjects, where, _names(files), join, pattern)
    paths = tuple(files[index].absolute() for index in indices)
    headers = _of_each(paths, header)
    notes = orientations(table.index, headers)
    grids = [header.grid for header in headers]
    common = common_grid(paths, grids, space, grid, voxel_size)
    notes += _fitting(grids, common, space)
    inside = None if mask is None else mask_on_grid(mask, common, space)
    masked = "" if inside is None else f", {inside.sum()} of them in the mask"
    x = Volumes(paths, common, space, inside, normalize)
    notes += _missing(table.index, _of_each(paths, lambda path: volume_on_grid(path, x)[1]))
    report = (
        f"{Path(source).name}: {len(files)} volumes; joined {len(x)} subjects, "
        f"{described(common)}{masked}; dropped {', '.join(dropped) or 'nothing'}"
        + "".join(f"; {note}" for note in notes)
    )
    return with_target(x, table, target, report)


def _files(source):
    folder = Path(source)
    anatomies = sorted(folder.glob(BIDS_ANATOMY)) if folder.is_dir() else []
    files = anatomies or files_of(source, SUFFIXES)
    wrong = [path.name for path in files if not path.name.lower().endswith(SUFFIXES)]
    if wrong:
        raise DataError(
            f"Every file must be a NIfTI file, {' or '.join(SUFFIXES)}. "
            f"Received: {counted(wrong, 'other file')}. Try a path that ends in '*.nii.gz'."
        )
    return files


def _names(files):
    names = [path.name for path in files]
    if len(set(names)) == len(names):
        return names
    root = os.path.commonpath([path.parent for path in files])
    return [path.relative_to(root).as_posix() for path in files]


def _of_each(paths, read):
    """Read every file, and raise one error for all faulty files."""
    begin, reported = time.monotonic(), False
    found, faults = [], []
    for k, path in enumerate(paths):
        seconds = time.monotonic() - begin
        if k and seconds > REPORT_AFTER and not reported:
            reported = True
            rest = seconds / k * (len(paths) - k)
            print(f"Reading {len(paths)} volumes: about {rest:.0f} s more.", file=sys.stderr)
        try:
            found.append(read(path))
        except DataError as fault:
            faults.append(str(fault))
    if faults:
        more = [f"And {len(faults) - SHOWN} more such files."] if len(faults) > SHOWN else []
        raise DataError("\n".join(faults[:SHOWN] + more))
    return found


def _fitting(grids, common, space):
    steps = [(grid.shape, *voxel_map(grid, common, space)) for grid in grids]
    resampled = sum(not is_whole for *_, is_whole in steps)
    shifted = sum(
        is_whole and bool(offset.any() or shape != common.shape)
        for shape, _, offset, is_whole in steps
    )
    notes = [f"{shifted} padded or cropped"] if shifted else []
    notes += [f"{resampled} resampled"] if resampled else []
    return [f"{', '.join(notes)}, aligned in {space} space"] if notes else []


def _missing(ids, has_nan):
    names = [name for name, missing in zip(ids, has_nan, strict=True) if missing]
    return [f"NaN set to 0 in {counted(names, 'volume')}"] if names else []


def _require_options(space, grid, voxel_size):
    if space not in ("world", "centre"):
        raise DataError(f"`space` must be 'world' or 'centre'. Received: space={space!r}.")
    if grid is not None and (np.shape(grid) != (3,) or any(int(n) != n or n < 1 for n in grid)):
        raise DataError(
            "`grid` must be three numbers of voxels. "
            f"Received: grid={grid!r}. Try grid=(96, 112, 96)."
        )
    if voxel_size is not None and (
        np.shape(voxel_size) not in ((), (3,)) or not (np.asarray(voxel_size) > 0).all()
    ):
        raise DataError(
            "`voxel_size` must be one or three positive numbers of millimetres. "
            f"Received: voxel_size={voxel_size!r}. Try voxel_size=2."
        )
