"""Reading one table: every dialect gives the same table, every fault a message that names it."""

import math

import pytest

from keras_spectral.errors import DataError
from keras_spectral.neuro.reading import feature_table, label_table

PLAIN = "Id,x,y\n007,1,2\n008,2,2.5\n009,3,-1e-3\n"


@pytest.fixture
def written(tmp_path):
    def write(content, name="table.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return write


@pytest.mark.parametrize(
    ("content", "name", "encoding"),
    [
        (PLAIN, "plain.csv", "utf-8"),
        (PLAIN, "with_bom.csv", "utf-8-sig"),
        (PLAIN.replace("\n", "\r\n"), "windows.csv", "utf-8"),
        (PLAIN.replace("\n", "\r"), "old_mac.csv", "utf-8"),
        (PLAIN.replace(",", ";"), "semicolons.csv", "utf-8"),
        (PLAIN.replace(",", "\t"), "tabs.tsv", "utf-8"),
        (PLAIN.replace(",", "\t"), "tabs.csv", "utf-8"),
        (PLAIN.replace("x", '"x"').replace("007", '"007"'), "quoted.csv", "utf-8"),
        (PLAIN.replace(",", " , ").replace("00", "  00"), "blanks.csv", "utf-8"),
        (PLAIN.replace("x", ' "x"').replace("2.5", ' "2.5"'), "blank_and_quote.csv", "utf-8"),
        (PLAIN.replace("Id", '"Id"'), "quote_after_bom.csv", "utf-8-sig"),
        ("\n" + PLAIN.replace("\n", "\n\n"), "blank_lines.csv", "utf-8"),
        (PLAIN + ",,\n,,\n", "padded.csv", "utf-8"),
        (PLAIN.removesuffix("\n"), "no_last_newline.csv", "utf-8"),
    ],
)
def test_every_dialect_gives_the_same_table(written, content, name, encoding):
    table = feature_table(written(content, name, encoding), "Id")
    assert table.index.tolist() == ["007", "008", "009"]
    assert table.columns.tolist() == ["x", "y"]
    assert table.to_numpy().tolist() == [[1, 2], [2, 2.5], [3, -1e-3]]


@pytest.mark.parametrize("header", [",x,y", " ,x,y", '"",x,y'])
@pytest.mark.parametrize("id_column", ["", "Id", "Unnamed: 0"])
def test_a_first_column_without_a_name_holds_the_ids(written, header, id_column):
    table = feature_table(written(PLAIN.replace("Id,x,y", header)), id_column)
    assert table.index.tolist() == ["007", "008", "009"]


def test_an_empty_id_column_name_is_the_first_column(written):
    assert feature_table(written(PLAIN), "").index.name == "id"
    assert feature_table(written(PLAIN), "").columns.tolist() == ["x", "y"]


def test_numbers_are_read_to_the_last_bit(written):
    numbers = [math.pi, 1 / 3, 5e-324, 0.1 + 0.2]
    table = feature_table(written("Id,x\n" + "".join(f"s{n!r},{n!r}\n" for n in numbers)), "Id")
    assert table["x"].tolist() == numbers


def test_labels_are_text_as_written_and_only_empty_ones_are_missing(written):
    content = 'Id,a,b\n1,None,01\n2, NA ,1.0\n3, "x, y",True\n4,,"  "\n'
    table = label_table(written(content), "Id")
    assert table.loc[["1", "2", "3"]].to_numpy().tolist() == [
        ["None", "01"],
        ["NA", "1.0"],
        ["x, y", "True"],
    ]
    assert table.loc["4"].isna().all()


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv, which is not a file"):
        feature_table(tmp_path / "nowhere.csv", "Id")
    with pytest.raises(DataError, match="which is not a file"):
        feature_table(tmp_path, "Id")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "which is empty"),
        ("\n\n", "which is empty"),
        ("Id,x\n", "has only a header"),
        (PLAIN.encode("utf-16"), "cannot be read.*codec.*CSV UTF-8"),
        (b"Id,x\n1,\xfc\n", "cannot be read.*codec"),
        (PLAIN.replace("2.5", "2.5,7"), "cannot be read.*Expected 3 fields"),
        ("Id,x\n1,2,3\n2,3,4\n", "rows are longer than its header"),
        ("Id,x,y,x\n1,2,3,4\n", r"uses 1 name \(x\) more than once"),
        (PLAIN.replace("008", ""), r"without one in 1 row \(2\)"),
        (PLAIN.replace("008", '"  "'), r"without one in 1 row \(2\)"),
        (PLAIN.replace("008", " 007"), r"which repeats 1 id \(007\)"),
        (PLAIN.replace("Id", "id"), r"columns id, x, y\. Did you mean 'id'\?"),
        (PLAIN.replace("Id", "Subject"), r"columns Subject, x, y\. Try"),
    ],
)
def test_a_broken_table_is_an_error_that_says_what_is_broken(written, content, message):
    path = written(content)
    for read in (feature_table, label_table):
        with pytest.raises(DataError, match=message) as caught:
            read(path, "Id")
        assert str(path) in str(caught.value)


def test_at_most_five_ids_are_shown(written):
    rows = "".join(f"s{row},1\n" for row in range(8)) * 2
    with pytest.raises(DataError, match=r"8 ids \(s0, s1, s2, s3, s4 and 3 more\)"):
        feature_table(written("Id,x\n" + rows), "Id")
