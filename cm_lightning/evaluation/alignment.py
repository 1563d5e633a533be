"""Restriction of a report to the cases and classes on which all of its models were tested."""

from typing import NamedTuple

import pandas as pd

from cm_lightning.errors import InputError

KEYS = ["case", "class"]


class Coverage(NamedTuple):
    """What a run was tested on, and how much of it can be compared.

    Attributes:
        model: Name of the model.
        seed: Training seed.
        cases: Number of cases.
        used_cases: Number of cases that all runs have in common.
        left_out_classes: Names of the classes that other runs do not have.
    """

    model: str
    seed: int
    cases: int
    used_cases: int
    left_out_classes: tuple[str, ...]


class Aligned(NamedTuple):
    """Common cases and classes of several runs.

    Attributes:
        keys: Pairs of case and class.
        left_out: Coverage of the runs that were tested on further cases or classes; empty if all runs agree.
    """

    keys: pd.MultiIndex
    left_out: list[Coverage]

    def select(self, table: pd.DataFrame) -> pd.DataFrame:
        """Keep the rows of the common cases and classes.

        Args:
            table: Long table with the columns ``case`` and ``class``, or an empty one.

        Returns:
            Its rows with common keys, with a new index.
        """
        if table.empty:
            return table
        return table[pd.MultiIndex.from_frame(table[KEYS]).isin(self.keys)].reset_index(drop=True)


def common_keys(rows: pd.DataFrame) -> Aligned:
    """Find the cases and classes on which all models and seeds were tested.

    Means over other cases or classes cannot be compared: a model that lacks a difficult class would seem to be better.

    Args:
        rows: Long table with the columns ``model``, ``seed``, ``case``, ``patient`` and ``class``.

    Returns:
        The common keys.

    Raises:
        InputError: Two runs have no case and class in common, or a case belongs to different patients.
    """
    patients = rows.drop_duplicates(["case", "patient"])
    ambiguous = patients.loc[patients["case"].duplicated(), "case"]
    if len(ambiguous):
        case = ambiguous.iloc[0]
        names = ", ".join(sorted(patients.loc[patients["case"] == case, "patient"]))
        raise InputError(
            f"The case {case} belongs to the patients {names} in different runs; expected a single patient."
        )
    tested: dict[tuple[str, int], set[tuple[str, str]]] = {}
    for model, seed, case, name in rows[["model", "seed", *KEYS]].drop_duplicates().itertuples(index=False, name=None):
        tested.setdefault((model, seed), set()).add((case, name))
    first = next(iter(tested))
    common = set(tested[first])
    for (model, seed), keys in tested.items():
        common &= keys
        if not common:
            raise InputError(
                f"{model} (seed {seed}) has no case and class in common with {first[0]} and the other models; expected "
                "models of the same data in one report."
            )
    left_out = [
        Coverage(
            model,
            seed,
            cases=len({case for case, _ in keys}),
            used_cases=len({case for case, _ in common}),
            left_out_classes=tuple(sorted({name for _, name in keys} - {name for _, name in common})),
        )
        for (model, seed), keys in tested.items()
        if keys != common
    ]
    return Aligned(pd.MultiIndex.from_tuples(sorted(common), names=KEYS), left_out)
