"""Simulated brain volumes with planted differences.

Letters: `n` subject, `x`, `y`, `z` voxel, `k` field (a smooth pattern of voxels).

    x[n, x, y, z] = template[x, y, z] + scores[n, k] fields[k, x, y, z] + noise[n, x, y, z]

inside of an ellipsoid, the head, and 0 outside. Tissue has intensities near 1, two dark blobs in
the middle are ventricles. Fields have mean square 1 over the head and are orthogonal, noise is
smooth. The planted differences, and no others, are:

- `SHARED_FIELDS` (0-2): intensity that slants along the three axes, alike in all subjects.
- `DIAGNOSIS_FIELD` (3): the mean score of SZ lies `effect` standard deviations above that of HC:
  their ventricles are darker and wider. Spread is equal.
- `GROUP_FIELDS` (4-19): scores of the planted group (`site` B or `sex` M) are `1 + group_effect`
  times as wide. The fields change over a few voxels, as ringing does. Their mean is equal.

Where every volume is brought to mean 0 and standard deviation 1, as `load_volumes` does, its norm
carries no information, but both differences remain: the ventricles relative to tissue, and, in the
patches that a convolution sees, the group's variation within a patch.
"""

from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

from keras_spectral.errors import DataError
from keras_spectral.neuro.simulate.modes import fixed_generator, orthonormal
from keras_spectral.neuro.simulate.phenotype import ID, phenotype_of, planted, planted_size

SHARED_FIELDS = slice(0, 3)
DIAGNOSIS_FIELD = 3
GROUP_FIELDS = slice(4, 20)
FIELD_SD = np.array([0.03, 0.03, 0.03, 0.02, *[0.03] * 16])
"""Standard deviation of the scores of each field."""
NOISE_SD = 0.05
NOISE_WIDTH = 1.0
"""Standard deviation of the kernel that smooths the noise, in voxels."""
FIELD_WIDTH = 0.7
"""The same of the fields of the group."""
VOXEL = 4.0
"""Edge of a voxel in mm."""
SMALLEST = 8


def simulated_volumes(
    n_subjects=40,
    shape=(24, 28, 24),
    effect=2.0,
    group_effect=1.5,
    factor="site",
    group_size=None,
    seed=0,
):
    """Simulated brain volumes, and the phenotype of their subjects.

    See the docstring of this module for the planted differences.

    Args:
        n_subjects: Number of subjects, half of them SZ.
        shape: Three numbers of voxels, at least 8 each.
        effect: Distance between the means of SZ and HC along `DIAGNOSIS_FIELD`, in standard
            deviations of its scores. With the default, a small `cnn3d` reaches an AUC near 0.75.
        group_effect: How much wider the scores of the planted group are in `GROUP_FIELDS`: their
            standard deviation is `1 + group_effect` times that of the others. 0: no difference.
        factor: The factor with the planted difference: `"site"` (group B) or `"sex"` (group M).
        group_size: Number of subjects in the planted group. `None`: half. Of the other factor,
            half of the subjects have each level.
        seed: Integer seed of the subjects.

    Returns:
        The tuple `(x, phenotype)`: a float32 array `[n_subjects, *shape, 1]`, tissue near 1, 0
        outside of the head; and a DataFrame of the text columns `id`, `diagnosis`, `sex`, `site`
        in the same order.

    Raises:
        DataError: If a number is out of range or `factor` is unknown.

    Example:
        >>> x, phenotype = simulated_volumes(n_subjects=10, shape=(12, 14, 12))
        >>> x.shape
        (10, 12, 14, 12, 1)
    """
    group_size = planted_size(n_subjects, group_effect, factor, group_size)
    head, fields = simulated_head(shape), simulated_fields(shape)
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(n_subjects, len(fields))) * FIELD_SD
    noise = _smooth(generator.normal(size=(n_subjects, *shape)), NOISE_WIDTH)
    phenotype = phenotype_of(generator, n_subjects, factor, group_size)
    scores[planted(phenotype, "diagnosis"), DIAGNOSIS_FIELD] += effect * FIELD_SD[DIAGNOSIS_FIELD]
    scores[planted(phenotype, factor), GROUP_FIELDS] *= 1 + group_effect
    values = _template(shape) + np.tensordot(scores, fields, 1) + NOISE_SD * noise
    return (values * head)[..., None].astype(np.float32), phenotype


def simulated_head(shape=(24, 28, 24)):
    """Return which voxels lie in the head: a boolean array `[x, y, z]`.

    Args:
        shape: Three numbers of voxels, at least 8 each.

    Raises:
        DataError: If the volume is too small.
    """
    if len(shape) != 3 or min(shape) < SMALLEST:
        raise DataError(
            f"`shape` must be three numbers of voxels, at least {SMALLEST}. "
            f"Received: shape={tuple(shape)}. Try shape=(24, 28, 24)."
        )
    return (_coordinates(shape) ** 2).sum(axis=0) < 0.9**2


def simulated_fields(shape=(24, 28, 24)):
    """Return the smooth patterns in which simulated volumes differ beyond noise.

    Args:
        shape: Three numbers of voxels, at least 8 each.

    Returns:
        Float64 array `[20, x, y, z]`, see `DIAGNOSIS_FIELD` and `GROUP_FIELDS`: orthogonal, mean
        square 1 over the head, 0 outside of it. They depend on `shape` alone.

    Raises:
        DataError: If the volume is too small.
    """
    head = simulated_head(shape)
    rough = fixed_generator(*shape, 1).normal(size=(len(FIELD_SD) - 4, *shape))
    patterns = [*_coordinates(shape), -_ventricles(shape), *_smooth(rough, FIELD_WIDTH)]
    fields = np.zeros((len(patterns), *shape))
    fields[:, head] = orthonormal(np.stack(patterns)[:, head]) * np.sqrt(head.sum())
    return fields


def write_simulated_volumes(folder, **settings):
    """Write simulated subjects as a BIDS folder: NIfTI files and `participants.tsv`.

    Args:
        folder: Folder to write to, created if it does not exist.
        **settings: Arguments of `simulated_volumes`.

    Returns:
        The tuple of paths `(volumes, participants)`: the folder `simulated_bids` with
        `sub-sim01/anat/sub-sim01_T1w.nii.gz` …, and its `participants.tsv`. Both are as
        `neuro.volumes.load_volumes` reads them. Voxels are cubes of 4 mm in RAS axes, the origin
        is at the centre.

    Raises:
        DataError: As `simulated_volumes` does.
    """
    x, phenotype = simulated_volumes(**settings)
    volumes = Path(folder) / "simulated_bids"
    phenotype[ID] = "sub-" + phenotype[ID]
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = -VOXEL * (np.array(x.shape[1:4]) - 1) / 2
    for name, values in zip(phenotype[ID], x[..., 0], strict=True):
        path = volumes / name / "anat" / f"{name}_T1w.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(values, affine), path)
    participants = volumes / "participants.tsv"
    phenotype.rename(columns={ID: "participant_id"}).to_csv(participants, sep="\t", index=False)
    return volumes, participants


def _coordinates(shape):
    """Return where voxels lie, `[3, x, y, z]`: from -1 to 1 between the faces of the volume."""
    axes = ((2 * np.arange(n) + 1) / n - 1 for n in shape)
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def _ventricles(shape):
    x, y, z = _coordinates(shape)
    return np.exp(-(((np.abs(x) - 0.2) / 0.12) ** 2 + (y / 0.3) ** 2 + ((z - 0.1) / 0.2) ** 2))


def _template(shape):
    """Return bright tissue, darker at its rim and in the ventricles."""
    rim = np.clip(((_coordinates(shape) ** 2).sum(axis=0) / 0.9**2) ** 3, 0, 1)
    return 1 - 0.4 * rim - 0.5 * _ventricles(shape)


def _smooth(fields, width):
    """Smooth white noise `[k, x, y, z]`, and bring it back to standard deviation 1."""
    smooth = gaussian_filter(fields, (0, width, width, width), mode="wrap")
    impulse = np.zeros(fields.shape[1:])
    impulse[0, 0, 0] = 1
    return smooth / np.linalg.norm(gaussian_filter(impulse, width, mode="wrap"))
