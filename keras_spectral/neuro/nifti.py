"""NIfTI files: their headers, and their values in RAS axes."""

import zlib
from collections import Counter
from typing import NamedTuple

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import HeaderDataError

from keras_spectral.errors import DataError
from keras_spectral.neuro.grids import Grid
from keras_spectral.neuro.reading import counted, shown

UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    OverflowError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
)
"""What nibabel raises for files that are no NIfTI files, are incomplete or have broken headers."""


class Header(NamedTuple):
    """Facts of the header of a file.

    Attributes:
        grid: `Grid` in RAS axes.
        axes: Axes of the file, such as `"LAS"`.
        is_oriented: Whether it specifies the orientation; if not, nibabel assumes one.
    """

    grid: Grid
    axes: str
    is_oriented: bool


def header(path):
    """Read the header of a file.

    Args:
        path: Its path.

    Returns:
        `Header`.

    Raises:
        DataError: If it cannot be read, or is not that of a volume.
    """
    image, grid, orientation = _opened(path)
    axes = "".join(nibabel.orientations.ornt2axcodes(orientation))
    codes = int(image.header["qform_code"]), int(image.header["sform_code"])
    return Header(grid, axes, any(codes))


def _opened(path):
    """Read a header: `(image, grid in RAS axes, orientation)`."""
    try:
        image = nibabel.load(path)
        shape, kind = image.shape, image.get_data_dtype().kind
    except UNREADABLE as error:
        _refuse_unreadable(path, error)
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


def read_volume(path):
    """Read a volume.

    Args:
        path: Path of a file.

    Returns:
        The tuple `(float32 array [x, y, z] in RAS axes, its Grid)`.

    Raises:
        DataError: If it cannot be read, or is no volume.
    """
    image, grid, orientation = _opened(path)
    try:
        values = image.get_fdata(dtype=np.float32, caching="unchanged")
    except UNREADABLE as error:
        _refuse_unreadable(path, error)
    values = apply_orientation(values.reshape(image.shape[:3]), orientation)
    return np.array(values, order="C"), grid


def _refuse_unreadable(path, error):
    raise DataError(
        "Every volume must be a NIfTI file. "
        f"Received: {path}, which cannot be read: {' '.join(str(error).split())[:200]}. "
        "Try copying it again: it may be incomplete."
    ) from error


def orientations(ids, headers):
    """Return notes on the orientations of volumes: which were changed or assumed.

    Args:
        ids: Ids of the subjects.
        headers: List of their `Header`.

    Returns:
        List of texts.

    Raises:
        DataError: If only some headers say which side is left.
    """
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
