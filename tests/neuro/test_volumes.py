"""Volumes on disk: what is read against what was written, and each fault by name."""

import gzip
import pickle
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from nibabel.processing import resample_from_to

from keras_spectral.errors import DataError
from keras_spectral.neuro import volumes as module
from keras_spectral.neuro.volumes import Volumes, load_volumes

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
IDS = ("s3", "s1", "s4", "s2")
SHAPE = (5, 6, 7)
AFFINE = nibabel.affines.from_matvec(np.diag([2.0, 2.0, 2.0]), [-4.0, -5.0, -6.0])


def write(path, values, affine=AFFINE, dtype=np.float32):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.astype(dtype), affine), path)


@pytest.fixture
def values():
    """Four volumes with a border of zeros, by id."""
    rng = np.random.default_rng(0)
    inner = rng.normal(10, 3, size=(4, *SHAPE)).astype(np.float32)
    inner[:, 0] = 0
    return dict(zip(IDS, inner, strict=True))


@pytest.fixture
def phenotype():
    return pd.DataFrame({"id": IDS, "group": ["SZ", "HC", "HC", "SZ"]})


@pytest.fixture
def folder(tmp_path, values):
    for name, volume in values.items():
        write(tmp_path / "data" / f"{name}_T1w.nii.gz", volume)
    return tmp_path / "data"


@pytest.fixture
def load(folder, phenotype):
    return lambda source=folder, **options: load_volumes(source, phenotype, "group", **options)


def scored(volume, inside):
    expected = np.zeros(volume.shape)
    chosen = volume[inside].astype(np.float64)
    expected[inside] = (chosen - np.mean(chosen)) / np.sqrt(np.mean((chosen - chosen.mean()) ** 2))
    return expected


def report_of(subjects):
    return subjects.phenotype.attrs["report"]


def test_volumes_are_read_in_the_order_of_the_phenotype(load, values):
    x, y, phenotype = load(normalize=False)
    assert phenotype.index.tolist() == list(IDS)
    assert y.tolist() == [1, 0, 0, 1]
    assert x.shape == (4, *SHAPE, 1)
    assert len(x) == 4
    np.testing.assert_array_equal(x.array()[..., 0], np.stack(list(values.values())))
    np.testing.assert_array_equal(x.one(1)[..., 0], values["s1"])
    np.testing.assert_array_equal(x.grid.affine, AFFINE)
    assert x.array().dtype == x.one(0).dtype == np.float32


def test_the_report_is_one_printed_line(load, capsys):
    report = report_of(load())
    assert report == (
        "data: 4 volumes; joined 4 subjects, 5 x 6 x 7 voxels of 2 x 2 x 2 mm; "
        "dropped nothing; group: HC 2, SZ 2"
    )
    assert capsys.readouterr().out == report + "\n"


def test_each_volume_is_normalized_over_its_own_voxels_that_are_not_zero(load, values, folder):
    x = load().x.array()[..., 0]
    for own, volume in zip(x, values.values(), strict=True):
        np.testing.assert_allclose(own, scored(volume, volume != 0), atol=1e-5)
    write(folder / "s1_T1w.nii.gz", 1000 * values["s1"] ** 2)
    np.testing.assert_array_equal(load().x.array()[[0, 2, 3], ..., 0], x[[0, 2, 3]])


def test_a_mask_says_where_to_normalize_and_the_rest_is_zero(load, values, tmp_path):
    mask = np.zeros(SHAPE)
    mask[1:4, 2:5, 1:6] = 1
    write(tmp_path / "mask.nii", mask, dtype=np.uint8)
    found = load(mask=tmp_path / "mask.nii")
    assert "5 x 6 x 7 voxels of 2 x 2 x 2 mm, 45 of them in the mask;" in report_of(found)
    for own, volume in zip(found.x.array()[..., 0], values.values(), strict=True):
        np.testing.assert_allclose(own, scored(volume, mask > 0), atol=1e-5)
    kept = load(mask=tmp_path / "mask.nii", normalize=False).x.one(0)[..., 0]
    np.testing.assert_array_equal(kept, values["s3"] * mask)


def test_a_mask_is_brought_to_the_grid(load, tmp_path):
    mask = np.zeros((4, 4, 4))
    mask[1, 1, 1] = 3  # a voxel of 4 mm, from -0.9 to 3.1 mm
    write(tmp_path / "mask.nii", mask, nibabel.affines.from_matvec(np.eye(3) * 4, [-2.9] * 3))
    inside = load(mask=tmp_path / "mask.nii").x.mask
    places = {tuple(place) for place in (np.argwhere(inside) * 2 + AFFINE[:3, 3]).tolist()}
    assert places == {(a, b, c) for a in (0, 2) for b in (1, 3) for c in (0, 2)}


def test_where_keeps_some_subjects_and_the_files_of_others_are_not_extra(load, phenotype):
    phenotype["site"] = ["1", "1", "1", "2"]
    found = load(where={"site": "1"})
    assert found.phenotype.index.tolist() == ["s3", "s1", "s4"]
    assert "dropped 1 subject with site '2' (s2);" in report_of(found)


def test_pixels_of_other_types_are_read_with_their_scale(folder, load, values):
    small = np.random.default_rng(1).integers(0, 255, size=SHAPE)
    write(folder / "s1_T1w.nii.gz", small, dtype=np.uint8)
    image = nibabel.Nifti1Image(values["s2"], AFFINE)
    image.set_data_dtype(np.int16)
    nibabel.save(image, folder / "s2_T1w.nii.gz")
    x = load(normalize=False).x
    np.testing.assert_array_equal(x.one(1)[..., 0], small)
    stored = nibabel.load(folder / "s2_T1w.nii.gz")
    pixels, slope = stored.dataobj.get_unscaled(), float(stored.dataobj.slope)
    assert pixels.dtype == np.int16
    assert slope < 0.01
    expected = pixels * slope + float(stored.dataobj.inter)
    np.testing.assert_allclose(x.one(3)[..., 0], expected, atol=1e-5)


@pytest.mark.parametrize("axes", ["LAS", "RPS", "LPI", "PIR", "SAL"])
def test_a_volume_in_other_axes_gives_the_same_array(folder, load, axes):
    expected = load().x.array()
    path = folder / "s4_T1w.nii.gz"
    image = nibabel.load(path)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(axes)
    )
    nibabel.save(image.as_reoriented(turn), path)
    assert nibabel.aff2axcodes(nibabel.load(path).affine) == tuple(axes)
    found = load()
    np.testing.assert_array_equal(found.x.array(), expected)
    assert report_of(found).endswith(f"nothing; 1 reoriented to RAS from {axes}; group: HC 2, SZ 2")


def test_a_trailing_axis_of_one_volume_is_no_axis(folder, load, values):
    write(folder / "s4_T1w.nii.gz", values["s4"][..., None])
    np.testing.assert_array_equal(load(normalize=False).x.one(2)[..., 0], values["s4"])


def test_voxels_of_other_sizes_are_resampled_to_the_common_space(folder, load, values):
    coarse = np.random.default_rng(2).normal(5, 1, size=(4, 4, 4)).astype(np.float32)
    affine = nibabel.affines.from_matvec(np.diag([3.0, 3.0, 4.0]), [-4.0, -5.0, -5.0])
    write(folder / "s2_T1w.nii.gz", coarse, affine)
    found = load(normalize=False)
    # Fields of view from (-5.5, -6.5, -7) and (-5, -6, -7) to (6.5, 5.5, 9) and (5, 6, 7) mm.
    assert found.x.grid.shape == (7, 7, 8)
    np.testing.assert_allclose(found.x.grid.affine[:3, 3], [-6, -7, -6])
    assert "; 3 padded or cropped, 1 resampled, aligned in world space; " in report_of(found)
    padded = np.pad(values["s3"], [(1, 1), (1, 0), (0, 1)])
    np.testing.assert_array_equal(found.x.one(0)[..., 0], padded)
    expected = resample_from_to(
        nibabel.Nifti1Image(coarse, affine), found.x.grid, order=1, mode="grid-constant"
    )
    np.testing.assert_allclose(found.x.one(3)[..., 0], expected.get_fdata(), rtol=1e-4, atol=1e-4)


def test_a_ramp_in_millimetres_stays_that_ramp_at_another_voxel_size(tmp_path, phenotype):
    for name, size in zip(IDS, (1, 1, 2, 1), strict=True):
        affine = nibabel.affines.from_matvec(np.eye(3) * size, [size / 2] * 3)
        place = nibabel.affines.apply_affine(
            affine, np.moveaxis(np.indices([16 // size] * 3), 0, -1)
        )
        write(tmp_path / f"{name}.nii", 100 + place @ [1, 2, 3], affine)
    x = load_volumes(tmp_path, phenotype, "group", voxel_size=1.6, normalize=False).x
    assert x.grid.shape == (10, 10, 10)
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(x.grid.affine), 1.6)
    place = nibabel.affines.apply_affine(x.grid.affine, np.moveaxis(np.indices((10,) * 3), 0, -1))
    expected = 100 + place @ [1, 2, 3]
    inner = (slice(None), *[slice(1, -1)] * 3, 0)
    np.testing.assert_allclose(x.array()[inner], np.stack([expected] * 4)[inner[:-1]], rtol=1e-5)


def test_oblique_volumes_of_one_grid_are_not_resampled(tmp_path, values, phenotype):
    cos, sin = np.cos(0.2), np.sin(0.2)
    affine = AFFINE.copy()
    affine[:3, :3] = 2 * np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    for name, volume in values.items():
        write(tmp_path / f"{name}.nii", volume, affine)
    x = load_volumes(tmp_path, phenotype, "group", grid=(3, 4, 5), normalize=False).x
    np.testing.assert_array_equal(x.one(0)[..., 0], values["s3"][1:-1, 1:-1, 1:-1])
    write(tmp_path / "s1.nii", values["s1"])
    found = load_volumes(tmp_path, phenotype, "group", normalize=False)
    np.testing.assert_allclose(found.x.grid.affine[:3, :3], np.eye(3) * 2, atol=1e-6)
    assert "3 resampled" in report_of(found)


def test_crops_are_aligned_at_their_centres_and_padded_without_blur(tmp_path, phenotype):
    rng = np.random.default_rng(3)
    crops = [rng.normal(size=shape) for shape in [(4, 4, 4), (6, 5, 4), (2, 6, 3), (5, 4, 4)]]
    for name, crop in zip(IDS, crops, strict=True):
        write(tmp_path / f"{name}.nii", crop, np.diag([1.0, 1.0, 1.0, 1.0]))
    found = load_volumes(tmp_path, phenotype, "group", space="centre", normalize=False)
    assert "6 x 6 x 4 voxels" in report_of(found)
    assert "4 padded or cropped, aligned in centre space" in report_of(found)
    expected = [
        np.pad(crops[0], [(1, 1), (1, 1), (0, 0)]),
        np.pad(crops[1], [(0, 0), (1, 0), (0, 0)]),
        np.pad(crops[2], [(2, 2), (0, 0), (1, 0)]),
        np.pad(crops[3], [(1, 0), (1, 1), (0, 0)]),
    ]
    np.testing.assert_array_equal(found.x.array()[..., 0], np.float32(expected))
    x = load_volumes(
        tmp_path, phenotype, "group", space="centre", grid=(2, 4, 4), normalize=False
    ).x
    np.testing.assert_array_equal(x.one(0)[..., 0], np.float32(crops[0][1:3]))


def test_volumes_apart_from_each_other_have_no_common_space(folder, load, values):
    far = AFFINE + np.array([[0, 0, 0, 500]] * 3 + [[0] * 4])
    write(folder / "s2_T1w.nii.gz", values["s2"], far)
    with pytest.raises(DataError, match=r"one space.*1 volume \(s2_T1w\.nii\.gz\).*Try `space="):
        load()
    found = load(space="centre", normalize=False)
    np.testing.assert_array_equal(found.x.one(3)[..., 0], values["s2"])


def test_nan_outside_of_the_brain_becomes_zero_and_is_reported(folder, load, values, tmp_path):
    mask = values["s3"] != 0
    write(tmp_path / "mask.nii", mask)
    expected = {name: load(**kw).x.array() for name, kw in mask_options(tmp_path).items()}
    write(folder / "s4_T1w.nii.gz", np.where(values["s4"] == 0, np.nan, values["s4"]))
    for name, options in mask_options(tmp_path).items():
        found = load(**options)
        np.testing.assert_array_equal(found.x.array(), expected[name])
        assert "; NaN set to 0 in 1 volume (s4); " in report_of(found)


def mask_options(tmp_path):
    return {"without": {}, "with": {"mask": tmp_path / "mask.nii"}}


def test_nan_within_the_mask_is_an_error(folder, load, values, tmp_path):
    write(tmp_path / "mask.nii", np.ones(SHAPE))
    write(folder / "s4_T1w.nii.gz", np.where(values["s4"] == 0, np.nan, values["s4"]))
    with pytest.raises(DataError, match=r"mask must be numbers.*s4_T1w.nii.gz, where 42 of 210"):
        load(mask=tmp_path / "mask.nii")


def truncated(path, values):
    path.write_bytes(path.read_bytes()[:-200])


def truncated_plain(path, values):
    path.write_bytes(gzip.decompress(path.read_bytes())[:-200])
    path.rename(path.with_suffix(""))


def header_only(path, values):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:352]))


def overwritten(path, values):
    path.write_bytes(b"no NIfTI file at all")


def empty(path, values):
    path.write_bytes(b"")


def of_four_axes(path, values):
    write(path, np.stack([values, values], axis=-1))


def of_two_axes(path, values):
    write(path, values[0])


def constant(path, values):
    write(path, np.full(SHAPE, 7.1))


def all_nan(path, values):
    write(path, np.full(SHAPE, np.nan))


def infinite(path, values):
    write(path, np.where(values == 0, np.inf, values))


def complex_numbers(path, values):
    write(path, values, dtype=np.complex64)


def without_orientation(path, values):
    image = nibabel.Nifti1Image(values, None)
    assert not image.header["sform_code"]
    nibabel.save(image, path)


def without_axes(path, values):
    image = nibabel.Nifti1Image(values, AFFINE)
    image.header.set_sform(np.diag([0.0, 0.0, 0.0, 1.0]), 1)
    raw = bytearray(image.header.binaryblock) + bytes(4)
    path.write_bytes(gzip.compress(bytes(raw) + values.tobytes(order="F")))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (truncated, r"s1_T1w\.nii\.gz, which cannot be read: .*Try copying it again"),
        (truncated_plain, r"s1_T1w\.nii, which cannot be read: .*Try copying it again"),
        (header_only, r"s1_T1w\.nii\.gz, which cannot be read"),
        (overwritten, r"s1_T1w\.nii\.gz, which cannot be read"),
        (empty, r"s1_T1w\.nii\.gz, which cannot be read"),
        (of_four_axes, r"three axes.*s1_T1w\.nii\.gz, of shape \(5, 6, 7, 2\)"),
        (of_two_axes, r"three axes.*s1_T1w\.nii\.gz, of shape \(6, 7\)"),
        (constant, r"must vary.*s1_T1w\.nii\.gz, which is constant"),
        (all_nan, r"must vary.*s1_T1w\.nii\.gz, which is constant"),
        (infinite, r"finite numbers.*s1_T1w\.nii\.gz, with 42 that are infinite"),
        (complex_numbers, r"real numbers.*s1_T1w\.nii\.gz, of type complex64"),
        (without_orientation, r"which side is left.*1 subject \(s1\) without qform and sform"),
        (without_axes, r"where its voxels lie.*s1_T1w\.nii\.gz, with the affine"),
    ],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_a_broken_file_is_named(folder, load, values, broken, message, normalize):
    broken(folder / "s1_T1w.nii.gz", values["s1"])
    with pytest.raises(DataError, match=message):
        load(normalize=normalize)


def test_all_broken_files_are_named_at_once(folder, load):
    for name in ("s1", "s2"):
        truncated(folder / f"{name}_T1w.nii.gz", None)
    with pytest.raises(DataError, match=r"(?s)s1_T1w.nii.gz, which.*\n.*s2_T1w.nii.gz, which"):
        load()


def test_a_volume_that_is_constant_where_it_is_normalized_is_an_error(folder, load, values):
    write(folder / "s1_T1w.nii.gz", values["s1"] != 0)
    with pytest.raises(DataError, match=r"over the voxels to normalize.*s1_T1w\.nii\.gz"):
        load()
    assert set(np.unique(load(normalize=False).x.one(1))) == {0, 1}


def test_no_header_with_an_orientation_is_reported(tmp_path, values, phenotype):
    for name, volume in values.items():
        without_orientation(tmp_path / f"{name}.nii", volume)
    report = report_of(load_volumes(tmp_path, phenotype, "group"))
    assert "; no header says which side is left, taken as LAS;" in report


def test_a_subject_without_a_file_is_named(folder, load):
    (folder / "s1_T1w.nii.gz").unlink()
    with pytest.raises(DataError, match=r"1 subject without data \(s1\)"):
        load()
    found = load(join="inner")
    assert found.phenotype.index.tolist() == ["s3", "s4", "s2"]
    assert "dropped 1 subject without data (s1);" in report_of(found)


def test_a_file_without_a_subject_is_named(folder, load, values):
    write(folder / "s5_T1w.nii.gz", values["s1"])
    with pytest.raises(DataError, match=r"without a subject in the phenotype: s5_T1w\.nii\.gz"):
        load()
    assert len(load(join="inner").x) == 4


def test_a_file_with_a_wrong_name_is_named_with_the_subject_it_lacks(folder, load):
    (folder / "s1_T1w.nii.gz").rename(folder / "s9_T1w.nii.gz")
    message = r"without data \(s1\); .*without a subject.*: s9_T1w\.nii\.gz; 3 in"
    with pytest.raises(DataError, match=message):
        load()


def test_swapped_names_swap_the_volumes(folder, load, values):
    first, second = folder / "s1_T1w.nii.gz", folder / "s2_T1w.nii.gz"
    first.rename(folder / "other")
    second.rename(first)
    (folder / "other").rename(second)
    np.testing.assert_array_equal(load(normalize=False).x.one(1)[..., 0], values["s2"])


def test_two_files_of_one_subject_are_an_error(folder, load, values):
    write(folder / "s1_run-2_T1w.nii", values["s1"])
    with pytest.raises(DataError, match=r"1 subject \(s1\) with several, as s1_T1w"):
        load()


def test_a_folder_without_volumes_is_an_error(tmp_path, load):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no file that ends in \.nii, \.nii\.gz"):
        load(tmp_path / "empty")
    (tmp_path / "empty" / "s1.mgz").write_bytes(b"")
    with pytest.raises(DataError, match=r"no file that ends in \.nii, \.nii\.gz"):
        load(tmp_path / "empty")
    with pytest.raises(DataError, match=r"NIfTI file, .*1 other file \(s1\.mgz\)"):
        load(f"{tmp_path}/empty/*")


def test_a_path_with_a_star_and_a_pattern_choose_files(folder, load, values):
    for name, volume in values.items():
        write(folder / f"{name}_T2w.nii.gz", volume + 1)
    found = load(f"{folder}/*_T2w.nii.gz", pattern=r"(s\d)_", normalize=False)
    np.testing.assert_array_equal(found.x.one(0)[..., 0], values["s3"] + 1)


def test_a_bids_folder_gives_its_anatomical_images(tmp_path, values, phenotype):
    for name, volume in values.items():
        session = "ses-1/" if name == "s1" else ""
        anatomy = tmp_path / f"sub-{name}" / f"{session}anat"
        write(anatomy / f"sub-{name}_T1w.nii.gz", volume)
        (anatomy / f"sub-{name}_T1w.json").write_text("{}")
        bold = np.stack([volume] * 2, axis=-1)
        write(tmp_path / f"sub-{name}" / "func" / f"sub-{name}_bold.nii.gz", bold)
    participants = phenotype.rename(columns={"id": "participant_id"})
    participants["participant_id"] = "sub-" + participants["participant_id"]
    participants.to_csv(tmp_path / "participants.tsv", sep="\t", index=False)
    x, _, rows = load_volumes(tmp_path, tmp_path / "participants.tsv", "group", normalize=False)
    assert rows.index.tolist() == [f"sub-{name}" for name in IDS]
    np.testing.assert_array_equal(x.array()[..., 0], np.stack(list(values.values())))


def test_folders_name_the_subjects_if_files_do_not(tmp_path, values, phenotype):
    for name, volume in values.items():
        write(tmp_path / "first_level" / name / "con_0001.nii", volume)
    x = load_volumes(tmp_path, phenotype, "group", normalize=False).x
    np.testing.assert_array_equal(x.one(0)[..., 0], values["s3"])


def test_indices_choose_volumes_as_in_numpy(load):
    x = load().x
    every = x.array()
    for chosen in (slice(1, 3), [2, 0], np.array([3]), np.array([True, False, False, True])):
        part = x[chosen]
        assert isinstance(part, Volumes)
        np.testing.assert_array_equal(part.array(), every[chosen])
    assert x[2].shape == (1, *SHAPE, 1)
    assert len(x[:0]) == 0
    assert len(list(x)) == 4
    with pytest.raises(IndexError):
        x[4]


def test_a_dataset_streams_the_same_volumes_in_the_same_order(load):
    x = load().x[[2, 0, 3, 1]]
    dataset = x.dataset()
    assert dataset.element_spec.shape == (*SHAPE, 1)
    assert dataset.element_spec.dtype == "float32"
    assert int(dataset.cardinality()) == 4
    for _ in range(2):
        np.testing.assert_array_equal(np.stack([v.numpy() for v in dataset]), x.array())
    (batch,) = dataset.batch(4)
    assert batch.shape == (4, *SHAPE, 1)


def test_no_voxels_are_held_in_memory_and_volumes_can_be_pickled(tmp_path, phenotype):
    values = np.random.default_rng(0).normal(size=(40, 40, 40))
    for name in IDS:
        write(tmp_path / f"{name}.nii", values)
    x = load_volumes(tmp_path, phenotype, "group").x
    held = pickle.dumps(x)
    assert len(held) < 4000
    np.testing.assert_array_equal(pickle.loads(held).one(1), x.one(1))


def test_what_is_read_may_be_changed_without_changing_the_file(load):
    x = load(normalize=False).x
    expected = x.array()
    x.one(0)[:] = 0
    np.testing.assert_array_equal(x.array(), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": "MNI"}, "`space` must be 'world' or 'centre'.*'MNI'"),
        ({"grid": (10, 10)}, r"`grid` must be three numbers of voxels.*\(10, 10\)"),
        ({"grid": (10, 10, 0)}, "`grid` must be three numbers of voxels"),
        ({"voxel_size": 0}, "`voxel_size` must be one or three positive numbers"),
        ({"voxel_size": (1, 2)}, "`voxel_size` must be one or three positive numbers"),
        ({"join": "outer"}, "`join` must be 'exact' or 'inner'"),
        ({"mask": "no_such_mask.nii"}, "no_such_mask.nii, which cannot be read"),
    ],
)
def test_arguments_that_cannot_be_meant_are_an_error(load, options, message):
    with pytest.raises(DataError, match=message):
        load(**options)


def test_masks_that_cannot_be_meant_are_an_error(load, values, tmp_path):
    write(tmp_path / "mask.nii", values["s1"])
    with pytest.raises(DataError, match=r"whole numbers.*mask\.nii, with fractions"):
        load(mask=tmp_path / "mask.nii")
    write(tmp_path / "mask.nii", np.zeros(SHAPE))
    with pytest.raises(DataError, match=r"voxels on the grid.*mask\.nii, with none there"):
        load(mask=tmp_path / "mask.nii")


def test_a_long_reading_says_how_long_it_takes(load, monkeypatch, capsys):
    monkeypatch.setattr(module, "REPORT_AFTER", 0.0)
    load()
    said = capsys.readouterr().err.splitlines()
    assert all(line.startswith("Reading 4 volumes: about ") for line in said)
    assert len(said) == 2  # headers, then voxels


def test_the_real_hippocampus_crops_load_without_loss():
    folder = DATA / "msd_hippocampus_nifti"
    if not folder.is_dir():
        pytest.skip(f"the real data is not at {folder}")
    x, y, phenotype = load_volumes(
        folder / "images",
        folder / "volumes_derived.csv",
        "large_median_split",
        "file",
        space="centre",
        normalize=False,
    )
    assert x.shape == (64, 43, 57, 46, 1)
    assert np.bincount(y).tolist() == [32, 32]
    assert phenotype.attrs["report"].startswith(
        "images: 64 volumes; joined 64 subjects, 43 x 57 x 46 voxels of 1 x 1 x 1 mm; "
        "dropped nothing; 64 padded or cropped, aligned in centre space"
    )
    for place, name in enumerate(phenotype.index):
        raw = nibabel.load(folder / "images" / name).get_fdata()
        assert float(x.one(place).max()) == np.float32(raw.max())
        np.testing.assert_allclose(x.one(place).sum(dtype=float), raw.sum(), rtol=1e-6)
        assert np.isclose(raw.max(), float(phenotype["max"].loc[name]))
