"""The configurations of a cross-validation, and the command line of each experiment."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cm_lightning.errors import InputError
from cm_lightning.runs.sweeps import SEED, Combination, combination_arguments, combination_name, read_combinations


@dataclass(frozen=True)
class Grid:
    """Configurations that are each run with all folds.

    Attributes:
        base: Configuration files of all experiments, overridden by those of the grid.
        files: Configuration files of the grid, each of which makes an experiment named after the file. A W&B sweep file
            stands for all combinations of its parameters except the fold.
        overlays: Configuration files of all experiments, which override those of the grid.
    """

    base: list[Path]
    files: list[Path] = field(default_factory=list)
    overlays: list[Path] = field(default_factory=list)

    def command_lines(self, fit_arguments: Sequence[str], seeds: Sequence[int] | None = None) -> list[list[str]]:
        """Return the ``fit`` command line of every experiment.

        Args:
            fit_arguments: Further arguments of ``fit`` that all experiments share.
            seeds: Seeds with which every experiment will be run, or None.

        Returns:
            Arguments of ``fit``, one list per experiment; a single list without a grid.

        Raises:
            InputError: A sweep cannot be expanded, has no base configuration, or varies the seed although ``seeds`` is
                given.
        """
        before = [f"--config={path}" for path in self.base]
        after = [f"--config={path}" for path in self.overlays]
        if not self.files:
            return [[*before, *after, *fit_arguments]]
        lines: list[list[str]] = []
        for path in self.files:
            combinations = read_combinations(path)
            if combinations is None:
                lines.append([*before, f"--config={path}", *after, f"--experiment={path.stem}", *fit_arguments])
                continue
            self._check_sweep(path, combinations, seeds)
            for combination in combinations:
                # As with a W&B agent, the values come last: they must match the name of the experiment.
                name = f"--experiment={path.stem}{combination_name(combination)}"
                lines.append([*before, *after, name, *fit_arguments, *combination_arguments(combination)])
        return lines

    def _check_sweep(self, path: Path, combinations: list[Combination], seeds: Sequence[int] | None) -> None:
        """Check that a sweep has a base configuration and does not vary the seed twice."""
        if not (self.base or self.overlays):
            raise InputError(f"The sweep {path} contains no base configuration; expected --config BASE --grid {path}.")
        if seeds is not None and SEED in combinations[0]:
            raise InputError(f"Both {path} ({SEED}) and --seeds {list(seeds)} set the seed; expected only one of them.")
