"""COBRE: resting fMRI of patients with schizophrenia and controls, as it was released.

The data are not part of this package. The phenotype is INDI's; volumes and confounds are those of
the light release that NIAK preprocessed (6 mm, 150 volumes), which nilearn once fetched.

Source:
    Aine et al. 2017, "Multimodal Neuroimaging in Schizophrenia: Description and Dissemination",
    Neuroinformatics 15; fcon_1000.projects.nitrc.org/indi/retro/cobre.html (CC BY-NC);
    "COBRE preprocessed with NIAK 0.17 - lightweight release", Bellec 2016, figshare 4197885.
"""

import sys
import time
import zlib
from pathlib import Path

import pandas as pd

from keras_spectral.errors import DataError
from keras_spectral.neuro.reading import counted, label_table, shown
from keras_spectral.neuro.subjects import joined, phenotype_table

COLUMNS = {
    "Current Age": "age",
    "Gender": "sex",
    "Handedness": "handedness",
    "Subject Type": "group",
    "Diagnosis": "diagnosis",
    "Frames OK": "frames_ok",
    "FD": "fd",
    "FD Scrubbed": "fd_scrubbed",
}
"""Columns of the release, and their names here. The last three are in nilearn's table only."""
REQUIRED = ("age", "sex", "handedness", "group", "diagnosis")
GROUPS = ("Control", "Patient")
DISENROLLED = "Disenrolled"
ID_LENGTH = 7
PROGRESS_EVERY = 2.0
"""Seconds between two lines of progress."""


def cobre_phenotype(source):
    """Read COBRE's phenotype, print what was dropped, and return the enrolled subjects.

    Columns are renamed as in `COLUMNS`: `Current Age` (years) to `age`, `Gender` to `sex`
    (Female, Male), `Handedness` to `handedness` (Both, Left, Right), `Subject Type` to `group`
    (Control, Patient), `Diagnosis` to `diagnosis` (DSM-IV code of a patient, the text "None" of
    a control). Subjects who are "Disenrolled" are dropped.

    Args:
        source: Path of `COBRE_phenotypic_data.csv`, as INDI releases it.

    Returns:
        DataFrame of text indexed by the 7-digit id, the ids in the order of the file. Its
        `attrs["report"]` is the printed line.

    Raises:
        DataError: If the file cannot be read, lacks a column, or has other ids or groups.

    Source:
        fcon_1000.projects.nitrc.org/indi/retro/cobre.html.
    """
    source = Path(source)
    n_subjects, table, dropped = _enrolled(source)
    return _reported(table, f"{source.name}: {n_subjects} subjects", dropped)


def cobre_files(folder):
    """Find the volumes and confounds that nilearn's former `fetch_cobre` left on disk.

    Args:
        folder: nilearn's data folder, or the folder `cobre` in it, with `phenotypic_data.tsv.gz`,
            `fmri_XXXXXXX.nii.gz` and `fmri_XXXXXXX.tsv.gz`, where `XXXXXXX` is an id. Tables may
            be there as `.tsv` too, which is how nilearn unpacked them.

    Returns:
        DataFrame of text indexed by the 7-digit id: the phenotype as `cobre_phenotype` has it, also
        `frames_ok`, `fd` and `fd_scrubbed` (mm) where the table has them, and the paths `fmri` and
        `confounds`. Subjects without both files are dropped, and counted in the printed line.

    Raises:
        DataError: If there is no phenotype of COBRE, or no subject has both files.
    """
    folder = Path(folder)
    folder = folder / "cobre" if (folder / "cobre").is_dir() else folder
    source = _table(folder, "phenotypic_data")
    if source is None:
        raise DataError(
            "`folder` must be the folder `cobre` that nilearn's fetch_cobre wrote. Received: "
            f"{folder}, without phenotypic_data.tsv.gz. Try nilearn's data folder, ~/nilearn_data."
        )
    n_subjects, table, dropped = _enrolled(source)
    found = {name: _files(folder, name) for name in table.index}
    found = {name: files for name, files in found.items() if None not in files}
    volumes = {_id_in(path): path.name for path in sorted(folder.glob("fmri_*.nii*"))}
    unused = [name for subject, name in volumes.items() if subject not in table.index]
    table = joined(table, found, unused, "inner", dropped)
    fmri, confounds = zip(*(found[name] for name in table.index), strict=True)
    table = table.assign(fmri=[str(path) for path in fmri], confounds=[str(p) for p in confounds])
    return _reported(table, f"{source.name}: {n_subjects} subjects", dropped)


def cobre_time_series(folder, atlas, out):
    """Write the time series of an atlas's regions, one file `XXXXXXX.csv` per subject.

    A series is the mean over a region's voxels in each volume, with all columns of the confounds
    file regressed out (the release has them not regressed out), standardised to mean 0 and standard
    deviation 1. No volume is dropped. Files that are already in `out` are not written again, so an
    interrupted run can be continued; use another folder for another atlas.

    Args:
        folder: As for `cobre_files`.
        atlas: Path of a labels image in MNI space: a whole number per voxel, 0 outside regions.
            It is resampled to the volumes; nilearn warns of regions that are lost by resampling.
        out: Folder to write to, created if it does not exist. Rows are volumes (2 s apart), columns
            are regions, named `region 1` and so on by their number in `atlas`.

    Returns:
        DataFrame of `cobre_files`, with the column `time_series`, the path of each file.

    Raises:
        DataError: As `cobre_files` does; also if the atlas or the files of a subject cannot be
            used.

    Source:
        `nilearn.maskers.NiftiLabelsMasker`.
    """
    atlas, out = Path(atlas), Path(out)
    if not atlas.is_file():
        raise DataError(f"`atlas` must be a labels image. Received: {atlas}, which is not a file.")
    table = cobre_files(folder)
    table["time_series"] = [str(out / f"{name}.csv") for name in table.index]
    out.mkdir(parents=True, exist_ok=True)
    left = table[[not Path(path).exists() for path in table["time_series"]]]
    if len(left) < len(table):
        print(f"{out}: {len(table) - len(left)} subjects are there already")
    for row in _with_progress(list(left.itertuples())):
        unfinished = Path(f"{row.time_series}.part")
        _series(row.fmri, row.confounds, atlas).to_csv(unfinished, index=False)
        unfinished.replace(row.time_series)
    return table


def _enrolled(source):
    table = label_table(source, "")
    names = {name.lower(): new for name, new in COLUMNS.items()}
    renamed = table.rename(columns=lambda name: names.get(name.lower(), name))
    missing = [name for name, new in COLUMNS.items() if new in REQUIRED and new not in renamed]
    if missing:
        raise DataError(
            "COBRE's phenotype must have the columns of its release. "
            f"Received: {source}, without {', '.join(missing)}; its columns are {shown(table)}. "
            "Try COBRE_phenotypic_data.csv from INDI."
        )
    renamed.index = pd.Index([_seven_digits(name, source) for name in table.index], name="id")
    other = set(renamed["group"].dropna()) - {*GROUPS, DISENROLLED}
    if other:
        raise DataError(
            f"COBRE's Subject Type must be {', '.join(GROUPS)} or {DISENROLLED}. "
            f"Received: {source}, with {counted(sorted(other), 'other value')}."
        )
    enrolled, dropped = phenotype_table(renamed, "", where={"group": GROUPS})
    return len(renamed), enrolled, dropped


def _seven_digits(name, source):
    if not (name.isdigit() and len(name) <= ID_LENGTH):
        raise DataError(
            f"COBRE's ids must be numbers of {ID_LENGTH} digits in the first column, such as "
            f"0040000. Received: {source}, with the id {name!r}."
        )
    return name.zfill(ID_LENGTH)  # nilearn's table has them without leading zeros


def _reported(table, found, dropped):
    sizes = ", ".join(f"{name} {(table['group'] == name).sum()}" for name in GROUPS)
    report = f"{found}; dropped {', '.join(dropped) or 'nothing'}; group: {sizes}"
    table.attrs = {"report": report}
    print(report)
    return table


def _table(folder, name):
    paths = [folder / f"{name}{suffix}" for suffix in (".tsv.gz", ".tsv")]
    return next((path for path in paths if path.is_file()), None)


def _files(folder, name):
    fmri = folder / f"fmri_{name}.nii.gz"
    return fmri if fmri.is_file() else None, _table(folder, f"fmri_{name}")


def _id_in(path):
    return path.name.removeprefix("fmri_").partition(".")[0]


def _series(fmri, confounds, atlas):
    import nibabel
    from nilearn.maskers import NiftiLabelsMasker  # slow to load

    masker = NiftiLabelsMasker(atlas, standardize="zscore_sample", reports=False)
    try:
        volumes = nibabel.load(fmri)
        regressors = _regressors(confounds, volumes.shape)
        series = masker.fit_transform(volumes, confounds=regressors)
    except DataError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError) as e:
        raise DataError(
            "Volumes must be a 4-D image that lies over the atlas, and confounds its table. "
            f"Received: {fmri} and {Path(confounds).name}, with {atlas}, which nilearn cannot use: "
            f"{str(e).strip()[:300]}. "
            "Try fetching the file again, or an atlas in MNI space."
        ) from e
    # Resampling may lose regions: the masker has the numbers of the remaining ones.
    numbers = [masker.region_ids_[column] for column in range(series.shape[1])]
    return pd.DataFrame(series, columns=[f"region {float(number):g}" for number in numbers])


def _regressors(path, shape):
    if len(shape) != 4:
        raise ValueError(f"it has {len(shape)} dimensions")
    table = pd.read_csv(path, sep="\t")
    wrong = table.columns[table.apply(pd.to_numeric, errors="coerce").isna().any()]
    if len(wrong) or len(table) != shape[3]:
        raise DataError(
            "Confounds must be a table of numbers with a row per volume. "
            f"Received: {path}, with {len(table)} rows for {shape[3]} volumes"
            + (
                f", and fields that are no numbers in {counted(wrong, 'column')}."
                if len(wrong)
                else "."
            )
        )
    return table


def _with_progress(rows):
    begin = reported = time.monotonic()
    for done, row in enumerate(rows):
        now = time.monotonic()
        if done and now - reported >= PROGRESS_EVERY:
            left = (now - begin) / done * (len(rows) - done)
            print(f"{done} of {len(rows)} subjects, about {left:.0f} s left", file=sys.stderr)
            reported = now
        yield row
