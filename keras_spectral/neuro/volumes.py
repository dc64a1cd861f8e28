"""Brain volumes in NIfTI files: brought to one grid, read from disk one at a time.

Letters: `n` subject, `x`, `y`, `z` voxel to the right, to the front and up.
"""

import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from scipy.ndimage import affine_transform

from keras_spectral.errors import DataError
from keras_spectral.neuro.reading import SHOWN, counted, shown
from keras_spectral.neuro.subjects import files_of, matched, phenotype_table, with_target

SUFFIXES = (".nii", ".nii.gz")
"""Files with the volume of one subject."""
BIDS_ANATOMY = "sub-*/**/anat/*_T1w.nii*"
"""Where a BIDS folder has its volumes."""
FLAT = 1e-6
"""A volume is constant if it varies by less than this share of its largest value."""
SAME = 1e-2
"""Two places are the same if they are closer than this share of a voxel."""
PATIENCE = 2.0
"""Seconds after which reading says how long it will take."""


class Grid(NamedTuple):
    """Where voxels lie.

    Attributes:
        shape: Three numbers of voxels.
        affine: Float64 array `[4, 4]` from the place of a voxel to millimetres in RAS axes.
    """

    shape: tuple
    affine: Any


@dataclass(frozen=True, eq=False)
class Volumes:
    """Volumes on disk, on one grid. In memory there are their paths and the mask.

    Every volume is read, reoriented to RAS axes, resampled if its own grid is another one (linear
    interpolation, zeros outside of its field of view), masked and normalized when it is asked for.

    Attributes:
        paths: Path of each subject's file.
        grid: The common `Grid`.
        space: `"world"` or `"centre"`: what volumes have in common, see `load_volumes`.
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
        """Shape of the array that all volumes would make: `(n, x, y, z, 1)`."""
        return (len(self), *self.grid.shape, 1)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, indices):
        places = np.atleast_1d(np.arange(len(self))[indices])
        return replace(self, paths=tuple(self.paths[k] for k in places))

    def one(self, place):
        """Read one volume.

        Args:
            place: Its place among the volumes.

        Returns:
            Float32 array `[x, y, z, 1]`.
        """
        return _volume(self.paths[place], self)[0][..., None]

    def array(self):
        """Read all volumes into memory; for a small set, such as a probe: `volumes[:8].array()`.

        Returns:
            Float32 array `[n, x, y, z, 1]`.
        """
        values = np.empty(self.shape, dtype=np.float32)
        for place in range(len(self)):
            values[place] = self.one(place)
        return values

    def dataset(self):
        """Read volumes as they are needed, in their order.

        Returns:
            `tf.data.Dataset` of float32 tensors `[x, y, z, 1]`, neither batched nor shuffled. As
            many volumes as there are processor cores may be in memory.
        """
        import tensorflow as tf  # slow to load

        places = tf.data.Dataset.range(len(self))
        return places.map(self.tensor, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def tensor(self, place):
        """Read one volume in the graph, as in a `map` of a dataset of places.

        Args:
            place: Scalar integer tensor.

        Returns:
            Float32 tensor `[x, y, z, 1]`.
        """
        import tensorflow as tf  # slow to load

        volume = tf.numpy_function(self.one, [place], tf.float32)
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
    """Find volumes and the phenotype of the same subjects.

    Every file is read once to see that it can be, and forgotten. If all volumes have the same grid
    in RAS axes and no other one is asked for, nothing is resampled.

    Args:
        source: Folder, or a path with `*`, of `.nii` or `.nii.gz` files with one volume each. Of a
            BIDS folder the T1-weighted images are taken, `sub-*/anat/*_T1w.nii.gz`. If several
            files have the same name, the folders they lie in name the subjects.
        phenotype: Path of a table with one row per subject, as `participants.tsv`, or a DataFrame.
        target: Column of the phenotype to predict.
        id_column: Column of the ids; `""` is the first one.
        where: Dictionary from column to the value, or values, of the subjects to keep.
        join: `"exact"`: every subject must have a volume, and every volume a subject. `"inner"`:
            keep what both have.
        pattern: Regular expression whose first group is the id in a file's name; `None` finds the
            id by itself, see `subjects.found_for`.
        space: What volumes have in common. `"world"`: the millimetres of their affines, as after
            normalization to MNI space. `"centre"`: only the centres of their fields of view and
            the directions of their axes, as of crops.
        grid: Three numbers of voxels of the common grid, at the centre of all fields of view;
            `None`: as many as it takes to cover all of them.
        voxel_size: Voxel size of the common grid in millimetres, one number or three; `None`: the
            median of the volumes, of two middle ones the smaller. Coarser voxels take the values
            at their centres: nothing is smoothed.
        mask: Path of a volume of whole numbers in the same space; where it is 0, volumes become 0.
        normalize: Bring each volume to mean 0 and standard deviation 1 over the voxels of the mask,
            or those that are not 0 if there is none; the others are 0. Nothing is fitted on other
            subjects.

    Returns:
        `Subjects` with `x` a `Volumes`. Its report says which volumes were reoriented, padded,
        cropped or resampled, and of which voxels that are NaN became 0.

    Raises:
        DataError: If something cannot be read or does not fit; the message says what.

    Example:
        >>> import tempfile
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
    everybody, _ = phenotype_table(phenotype, id_column)
    files = _files(source)
    table, places, dropped = matched(everybody, where, _names(files), join, pattern)
    paths = tuple(files[place].absolute() for place in places)
    headers = _of_each(paths, _header)
    notes = _orientations(table.index, headers)
    grids = [header.grid for header in headers]
    common = _common_grid(paths, grids, space, grid, voxel_size)
    notes += _fitting(grids, common, space)
    inside = None if mask is None else _mask(mask, common, space)
    masked = "" if inside is None else f", {inside.sum()} of them in the mask"
    x = Volumes(paths, common, space, inside, normalize)
    notes += _missing(table.index, _of_each(paths, lambda path: _volume(path, x)[1]))
    report = (
        f"{Path(source).name}: {len(files)} volumes; joined {len(x)} subjects, "
        f"{_described(common)}{masked}; dropped {', '.join(dropped) or 'nothing'}"
        + "".join(f"; {note}" for note in notes)
    )
    return with_target(x, table, target, report)


class _Header(NamedTuple):
    grid: Grid  # in RAS axes
    axes: str  # of the file, such as "LAS"
    is_oriented: bool  # else nibabel assumes an orientation


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
    """Read every file, and raise the faults of all together."""
    begin, told = time.monotonic(), False
    found, faults = [], []
    for k, path in enumerate(paths):
        seconds = time.monotonic() - begin
        if k and seconds > PATIENCE and not told:
            told = True
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


def _header(path):
    image, grid, orientation = _opened(path)
    axes = "".join(nibabel.orientations.ornt2axcodes(orientation))
    codes = int(image.header["qform_code"]), int(image.header["sform_code"])
    return _Header(grid, axes, any(codes))


def _opened(path):
    """Read a header: `(image, grid in RAS axes, orientation)`."""
    try:
        image = nibabel.load(path)
        shape, kind = image.shape, image.get_data_dtype().kind
    except Exception as error:  # whatever a broken file makes of its reader
        raise _unreadable(path, error) from error
    if len(shape) < 3 or any(length != 1 for length in shape[3:]):
        raise DataError(
            "Every volume must have three axes. "
            f"Received: {path}, of shape {shape}. "
            "Try the mean over time, or one of its volumes."
        )
    if kind not in "iuf":
        raise DataError(
            "Voxels must be real numbers. "
            f"Received: {path}, of type {image.get_data_dtype()}. Try the magnitude."
        )
    affine = np.asarray(image.affine, dtype=float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(
            "The header of every volume must say where its voxels lie. "
            f"Received: {path}, with the affine {affine.tolist()}, which cannot be inverted."
        )
    orientation = io_orientation(affine)
    order = np.argsort(orientation[:, 0])
    canonical = affine @ inv_ornt_aff(orientation, shape[:3])
    return image, Grid(tuple(int(shape[k]) for k in order), canonical), orientation


def _read(path):
    """Read a volume: `(values [x, y, z] in RAS axes, their grid)`."""
    image, grid, orientation = _opened(path)
    try:
        values = image.get_fdata(dtype=np.float32, caching="unchanged")
    except Exception as error:  # whatever a broken file makes of its reader
        raise _unreadable(path, error) from error
    values = apply_orientation(values.reshape(image.shape[:3]), orientation)
    return np.array(values, order="C"), grid


def _unreadable(path, error):
    return DataError(
        "Every volume must be a NIfTI file. "
        f"Received: {path}, which cannot be read: {' '.join(str(error).split())[:200]}. "
        "Try copying it again: it may be incomplete."
    )


def _volume(path, volumes):
    """Read a volume onto the grid: `(float32 array [x, y, z], whether a voxel was NaN)`."""
    values, own = _read(path)
    values, has_nan = _numbers(path, values, own, volumes)
    _require_variation(path, values, "")
    values = _placed(values, own, volumes.grid, volumes.space)
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
        gaps = _placed(missing.astype(np.float32), own, volumes.grid, volumes.space)
        n = int((gaps[volumes.mask] > FLAT).sum())
        if n:
            raise DataError(
                "Voxels of the mask must be numbers. "
                f"Received: {path}, where {n} of {volumes.mask.sum()} are NaN. "
                "Try a mask of what all subjects have, see `nilearn.masking.intersect_masks`."
            )
    values[missing] = 0
    return values, True


def _placed(values, own, grid, space, order=1):
    """Bring values from their own grid to another one."""
    matrix, offset, is_whole = _steps(own, grid, space)
    if is_whole and own.shape == grid.shape and not offset.any():
        return values
    order = 0 if is_whole else order
    # "constant" would lose the last voxel to a rounding error of its place.
    return affine_transform(values, matrix, offset, grid.shape, order=order, mode="grid-constant")


def _steps(own, grid, space):
    """The map from voxels of a grid to those of a volume, and whether it is a whole shift."""
    if space == "world":
        to_own = np.linalg.inv(own.affine) @ grid.affine
        matrix, offset = to_own[:3, :3], to_own[:3, 3]
    else:
        scale = voxel_sizes(grid.affine) / voxel_sizes(own.affine)
        matrix = np.diag(scale)
        offset = (np.array(own.shape) - 1) / 2 - scale * (np.array(grid.shape) - 1) / 2
        # Half a voxel off the centre, rather than all values blurred.
        same = np.abs(scale - 1) * np.max(grid.shape) < SAME
        offset = np.where(same, np.floor(offset), offset)
    is_shift = np.abs(matrix - np.eye(3)).max() * max(grid.shape) < SAME
    if is_shift and np.abs(offset - np.rint(offset)).max() < SAME:
        return np.eye(3), np.rint(offset), True
    return matrix, offset, False


def _common_grid(paths, grids, space, shape, voxel_size):
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
    """Cover all fields of view, with voxels that coincide with those of the usual grid."""
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


def _mask(path, grid, space):
    values, own = _read(path)
    values = np.nan_to_num(values)
    if (values != np.rint(values)).any():
        raise DataError(
            f"`mask` must hold whole numbers, 0 outside. Received: {path}, with fractions. "
            "Try a threshold: `nilearn.image.math_img('img > 0.5', img=…)`."
        )
    inside = _placed((values != 0).astype(np.float32), own, grid, space, order=0) > 0
    if not inside.any():
        raise DataError(
            "`mask` must have voxels on the grid of the volumes that are not 0. "
            f"Received: {path}, with none there. Try a mask in the same space."
        )
    return inside


def _orientations(ids, headers):
    without = [name for name, h in zip(ids, headers, strict=True) if not h.is_oriented]
    if 0 < len(without) < len(headers):
        raise DataError(
            "Headers must say which side is left: of all volumes, or of none. "
            f"Received: {counted(without, 'subject')} without qform and sform. "
            "Try setting theirs, or `where` without those subjects."
        )
    axes = Counter(header.axes for header in headers)
    turned = len(headers) - axes.pop("RAS", 0)
    notes = [f"{turned} reoriented to RAS from {shown(axes)}"] if turned else []
    return notes + ["no header says which side is left, taken as LAS"] * bool(without)


def _fitting(grids, common, space):
    steps = [(grid.shape, *_steps(grid, common, space)) for grid in grids]
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


def _described(grid):
    size = " x ".join(f"{length:.4g}" for length in voxel_sizes(grid.affine))
    return f"{' x '.join(map(str, grid.shape))} voxels of {size} mm"


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
