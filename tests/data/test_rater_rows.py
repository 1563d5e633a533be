"""Rows of boundaries by raters in a CSV file."""

import math

import pytest

from cm_lightning.data.rater_rows import read_rater_rows


def write(folder, text):
    path = folder / "raters.csv"
    path.write_text(text)
    return path


def test_points_and_contours(tmp_path):
    path = write(tmp_path, "frame,rater,upper_row,lower_row,angle\n007,a,3,9.5,1\n007,b,4,,2\n")
    rows = read_rater_rows(path)
    assert rows[["case", "subject", "sequence"]].eq("007").all(axis=None)
    assert rows[["rater", "boundary", "row"]].to_numpy().tolist() == [
        ["a", "upper", 3.0],
        ["b", "upper", 4.0],
        ["a", "lower", 9.5],
    ]
    assert all(map(math.isnan, rows["column"]))
    contour = "case,subject,sequence,rater,column,skin_row\n" + "".join(
        f"x,s1,s1_left,{rater},{column},{column + 5}\n" for rater in "ab" for column in (0, 10)
    )
    rows = read_rater_rows(write(tmp_path, contour))
    assert rows["column"].tolist() == [0, 10, 0, 10]
    assert set(rows["sequence"]) == {"s1_left"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame,rater\nx,a\n", r"raters.csv has the columns frame, rater; expected a CSV file with .*<boundary>_row"),
        ("frame,skin_row\nx,1\n", "has the columns frame, skin_row"),
        ("frame,rater,skin_row\nx,a,top\nx,b,2\n", "The column skin_row of .* contains text"),
        ("frame,rater,skin_row\nx,a,1\nx,a,2\nx,b,1\n", "the boundary skin of the case x by the rater a several times"),
        ("frame,rater,skin_row\nx,a,1\ny,b,2\n", "No boundary of .* was marked by two raters"),
    ],
)
def test_invalid_files(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_rater_rows(write(tmp_path, text))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"raters.csv does not exist; expected a CSV file"):
        read_rater_rows(tmp_path / "raters.csv")


def test_real_raters(real_data):
    rows = read_rater_rows(real_data / "timtrack" / "raters.csv")
    assert rows.groupby(["case", "boundary"])["rater"].size().eq(3).all()
    assert rows[["case", "subject", "sequence"]].nunique().tolist() == [209, 10, 19]
