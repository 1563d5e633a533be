"""Rows of boundaries by several raters, as points or contours in one CSV file instead of masks.

Muscle thickness, for example, is measured by marking the row of each aponeurosis. A file has a line per image and rater
(and per column of the picture, for contours)::

    frame,subject,sequence,rater,superficial_row,deep_row
    thigh_001,s1,s1_left,a,145,362
    thigh_001,s1,s1_left,b,143,365

Every column that ends with ``_row`` is a boundary, in pixels from the top of the picture. ``case`` may be written
instead of ``frame``; ``subject``, ``sequence`` and ``column`` (in pixels from the left) are optional.
"""

from pathlib import Path

import pandas as pd

from cm_lightning.errors import InputError, MissingInputError

ROW_ENDING = "_row"
EXPECTED = f"expected a CSV file with the columns frame, rater and one column <boundary>{ROW_ENDING} per boundary"


def read_rater_rows(path: Path) -> pd.DataFrame:
    """Read the rows of boundaries.

    Args:
        path: CSV file; see the description of this module.

    Returns:
        Long table with the columns ``case`` (name of the image file without its suffix), ``subject`` (the case if not
        given), ``sequence`` (the subject if not given), ``rater``, ``boundary``, ``row`` and ``column`` (NaN if not
        given), without missing rows.

    Raises:
        MissingInputError: The file does not exist.
        InputError: The file cannot be read, a column is missing or not a number, a rater marked a boundary of a case
            twice (in the same column), or no boundary has two raters.
    """
    if not path.is_file():
        raise MissingInputError(f"The file of raters {path} does not exist; {EXPECTED}.")
    try:
        table = pd.read_csv(path, encoding="utf-8-sig", dtype={"frame": str, "case": str, "rater": str, "subject": str})
    except (ValueError, OSError) as error:  # from decoding and from pandas
        raise InputError(f"{path} cannot be read: {error}; {EXPECTED}.") from error
    found, table = ", ".join(table.columns), table.rename(columns={"frame": "case"})
    boundaries = [name for name in table.columns if name.endswith(ROW_ENDING) and name != ROW_ENDING]
    if not {"case", "rater"} <= set(table.columns) or not boundaries:
        raise InputError(f"{path} has the columns {found}; {EXPECTED}.")
    numbers = [*boundaries, *(["column"] if "column" in table else [])]
    for name in numbers:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise InputError(f"The column {name} of {path} contains text; expected numbers of pixels.")
    subject = table.get("subject", table["case"])
    sequence = table.get("sequence", subject)
    table = table.assign(subject=subject, sequence=sequence, column=table.get("column", float("nan")))
    keys = ["case", "subject", "sequence", "rater", "column"]
    long = table.melt(keys, boundaries, var_name="boundary", value_name="row").dropna(subset="row")
    long["boundary"] = long["boundary"].str.removesuffix(ROW_ENDING)
    place = ["case", "boundary", "column"]
    repeated = long[long.duplicated([*place, "rater"])]
    if len(repeated):
        case, boundary, rater = repeated.iloc[0][["case", "boundary", "rater"]]
        raise InputError(
            f"{path} contains the boundary {boundary} of the case {case} by the rater {rater} several times; expected "
            "one row per boundary, or different values of 'column'."
        )
    if not (long.groupby(place, dropna=False)["rater"].size() >= 2).any():
        raise InputError(f"No boundary of {path} was marked by two raters, without which there is no variability.")
    return long[[*keys[:4], "boundary", "row", "column"]].reset_index(drop=True)
