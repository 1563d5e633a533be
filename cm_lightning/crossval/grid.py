"""The experiments of a cross-validation: one, or those of a grid, with every seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cm_lightning.errors import InputError
from cm_lightning.runs.sweeps import SEED, Combination, combination_arguments, combination_name, read_combinations


@dataclass(frozen=True)
class Grid:
    """Configurations that are each run with all folds.

    Attributes:
        base: Configurations that all experiments share, and that those of the grid override.
        files: Configurations of the grid, each an experiment named after its file; a sweep file of W&B stands for all
            combinations of its parameters but the fold.
        overlays: Configurations that all experiments share, and that override those of the grid.
    """

    base: list[Path]
    files: list[Path] = field(default_factory=list)
    overlays: list[Path] = field(default_factory=list)

    def command_lines(self, rest: Sequence[str], seeds: Sequence[int] | None = None) -> list[list[str]]:
        """Give the command line of every experiment.

        Args:
            rest: Further arguments of ``fit``, which all experiments share.
            seeds: Seeds that will be given to every experiment, or None.

        Returns:
            Arguments of ``fit``; one command line where there is no grid.

        Raises:
            InputError: A sweep cannot be expanded, has nothing to change, or brings seeds beside ``seeds``.
        """
        before = [f"--config={path}" for path in self.base]
        after = [f"--config={path}" for path in self.overlays]
        if not self.files:
            return [[*before, *after, *rest]]
        lines: list[list[str]] = []
        for path in self.files:
            combinations = read_combinations(path)
            if combinations is None:
                lines.append([*before, f"--config={path}", *after, f"--experiment={path.stem}", *rest])
                continue
            self._check_sweep(path, combinations, seeds)
            for combination in combinations:
                # Values come last, as an agent gives them: the experiment's name says that they hold.
                name = f"--experiment={path.stem}{combination_name(combination)}"
                lines.append([*before, *after, name, *rest, *combination_arguments(combination)])
        return lines

    def _check_sweep(self, path: Path, combinations: list[Combination], seeds: Sequence[int] | None) -> None:
        """Check that a sweep can be run with the other arguments."""
        if not (self.base or self.overlays):
            raise InputError(
                f"The sweep {path} says only what to vary; expected what it varies: --config BASE --grid {path}."
            )
        if seeds is not None and SEED in combinations[0]:
            raise InputError(f"{path} has values of {SEED}, and so has --seeds {list(seeds)}; expected one of the two.")
