"""What a fold may use on a cluster."""

from dataclasses import dataclass

from cm_lightning.errors import InputError


@dataclass(frozen=True)
class FoldResources:
    """Resources of folds on a cluster.

    Attributes:
        gpus: Number of GPUs of a fold; 0 trains on the CPU. None is 1, and 0 for Ray on a machine without a GPU.
        cpus: Number of CPU cores of a fold.
        parallel: Largest number of folds at a time; None for as many as the cluster has room for.

    Raises:
        InputError: A number is too small.
    """

    gpus: int | None = None
    cpus: int = 4
    parallel: int | None = None

    def __post_init__(self) -> None:
        for name, value, lowest in (("gpus", self.gpus, 0), ("cpus", self.cpus, 1), ("parallel", self.parallel, 1)):
            if value is not None and value < lowest:
                option = "--parallel" if name == "parallel" else f"--{name}_per_fold"
                raise InputError(f"{option} must be at least {lowest}, found {value}.")
