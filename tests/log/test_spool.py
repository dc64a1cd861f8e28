"""The growing list of blocks: nothing is lost when it moves to disk, nor when the disk is full."""

import errno
import pickle
import subprocess
import sys
import tempfile
import textwrap

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_spectral.log import spool
from keras_spectral.log.spool import Spool


def block(start, n=4, width=3):
    """Return a block whose rows and values tell where they belong."""
    position = np.arange(start, start + n)
    return pd.DataFrame({"position": position}), np.repeat(position[:, None] / 7, width, axis=1)


def filled(n_blocks, n=4):
    """Return a spool of blocks one after the other."""
    return Spool(block(j * n, n) for j in range(n_blocks))


def positions(blocks):
    """Return the positions that blocks hold, after checking rows against values."""
    found = []
    for rows, sigma in blocks:
        np.testing.assert_array_equal(rows["position"].to_numpy() / 7, sigma[:, 0])
        found += rows["position"].tolist()
    return found


@pytest.fixture
def tight(monkeypatch):
    """Let at most two or three blocks stay in memory."""
    monkeypatch.setattr(spool, "MEMORY_LIMIT", 400)


@pytest.fixture
def disk_full(monkeypatch):
    """Return a switch that makes temporary files full or not."""
    state = {"full": False}

    class Disk:
        def __init__(self, file):
            self._file = file

        def write(self, data):
            if state["full"]:
                self._file.write(data[: len(data) // 2])  # what a disk does before it is full
                raise OSError(errno.ENOSPC, "No space left on device")
            return self._file.write(data)

        def __getattr__(self, name):
            return getattr(self._file, name)

    real = tempfile.TemporaryFile
    monkeypatch.setattr(spool.tempfile, "TemporaryFile", lambda **kw: Disk(real(**kw)))
    return state


def test_blocks_stay_in_memory_below_the_limit():
    assert filled(3)._file is None
    assert positions(filled(3)) == list(range(12))


def test_blocks_beyond_the_limit_move_to_a_file(tight):
    spooled = filled(50)
    assert spooled._file is not None
    assert sum(len(rows) for rows, _ in spooled._recent) <= 12
    assert len(spooled) == 200
    assert positions(spooled) == list(range(200))
    assert positions(spooled) == list(range(200))


def test_values_come_back_from_the_file_bit_for_bit(tight):
    values = np.array([[np.nan, np.inf, -0.0], [5e-324, 1 / 3, 1e308]])
    rows = pd.DataFrame({"layer": ['é,"x"\n', ""], "truncated": [True, False]})
    spooled = Spool([(rows, values), *(block(j) for j in range(9))])
    assert spooled._spilled
    found_rows, found = next(iter(spooled))
    pd.testing.assert_frame_equal(found_rows, rows)
    assert found.tobytes() == values.tobytes()


def test_empty_blocks_are_no_blocks():
    spooled = Spool([block(0, 0), block(0), block(0, 0)])
    assert len(list(spooled)) == 1


@given(st.lists(st.integers(0, 6), max_size=12), st.data())
def test_after_begins_anywhere(sizes, data):
    spooled, total = Spool(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "MEMORY_LIMIT", 300)
        for n in sizes:
            spooled.append(*block(total, n))
            total += n
        begin = data.draw(st.integers(0, total + 2))
        assert positions(spooled.after(begin)) == list(range(begin, total))


def test_reading_goes_on_while_blocks_are_appended(tight):
    spooled = filled(7)
    for reading in (iter(spooled), spooled.after(0)):
        n = len(spooled)
        seen = []
        for j, part in enumerate(reading):
            seen += positions([part])
            if j < 10:
                spooled.append(*block(len(spooled)))
        assert seen[:n] == list(range(n))
        assert seen == list(range(len(seen)))
    assert positions(spooled) == list(range(len(spooled)))


def test_two_readers_do_not_disturb_each_other(tight):
    spooled = filled(20)
    pairs = list(zip(spooled, spooled.after(0), strict=True))
    assert positions(a for a, _ in pairs) == positions(b for _, b in pairs) == list(range(80))


def test_a_copy_has_a_file_of_its_own(tight):
    spooled = filled(20)
    twin = pickle.loads(pickle.dumps(spooled))
    spooled.append(*block(80))
    assert positions(twin) == list(range(80))
    assert twin._file is not spooled._file


def test_a_full_disk_loses_nothing(tight, disk_full):
    spooled = filled(10)
    assert spooled._spilled
    disk_full["full"] = True
    size = spooled._file.seek(0, 2)
    for j in range(10, 30):
        spooled.append(*block(4 * j))
        assert positions(spooled) == list(range(4 * j + 4))
    assert spooled._file.seek(0, 2) == size
    assert sum(len(rows) for rows, _ in spooled._recent) >= 80
    disk_full["full"] = False
    for j in range(30, 40):
        spooled.append(*block(4 * j))
    assert positions(spooled) == list(range(160))
    assert sum(len(rows) for rows, _ in spooled._recent) <= 12


def test_a_missing_temporary_folder_loses_nothing(tight, monkeypatch):
    def no_folder(**_):
        raise FileNotFoundError("no usable temporary folder")

    monkeypatch.setattr(spool.tempfile, "TemporaryFile", no_folder)
    assert positions(filled(20)) == list(range(80))


def test_a_really_full_disk_loses_nothing():
    # The kernel refuses to let any file of this process grow beyond 10000 bytes.
    code = """
        import resource
        import numpy as np, pandas as pd
        from keras_spectral.log import spool
        spool.MEMORY_LIMIT = 2000
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        spooled = spool.Spool()
        for j in range(60):
            spooled.append(pd.DataFrame({"position": [j]}), np.full((1, 100), float(j)))
            assert [rows.position[0] for rows, _ in spooled] == list(range(j + 1)), j
            assert [sigma[0, 99] for _, sigma in spooled] == list(range(j + 1)), j
        assert spooled._spilled and len(spooled._recent) > 40
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
