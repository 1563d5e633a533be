"""Time and memory of MC dropout, compared with the same number of plain forward passes.

    python benchmarks/mc_dropout.py [--size 64] [--samples 5] [--repeats 5] [--threads 2] [--networks UNet]

Three methods take turns in one process: passes without dropout, passes with the dropout of torch, and
``sample_dropout``, which seeds every mask and accumulates mean, entropies, variance and votes. Memory is the peak
resident set size of a separate process, for the given number of samples and for ten times as many.
"""

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from cm_lightning.models import create_network, dropout_layers
from cm_lightning.uncertainty import MCDropout, sample_dropout

Run = Callable[[nn.Module, torch.Tensor, int], None]
NETWORKS = {
    "UNet": {},
    "AttentionUnet": {},
    "UNETR": {"hidden_size": 96, "mlp_dim": 384, "num_heads": 4, "feature_size": 8},
}


def build(name: str, size: int) -> nn.Module:
    """Create a 3D network for three classes with the sizes of the study (UNETR is smaller)."""
    torch.manual_seed(0)
    return create_network(name, 3, 1, 4, (size,) * 3, **NETWORKS[name]).eval()  # type: ignore[arg-type]


def sample(network: nn.Module, image: torch.Tensor, samples: int) -> None:
    """Sample with the MC dropout of this package."""
    sample_dropout(network, network, image, "case", MCDropout(samples))


def plain(network: nn.Module, image: torch.Tensor, samples: int) -> None:
    """Run ``samples`` passes without dropout."""
    for _ in range(samples):
        network(image)


def torch_dropout(network: nn.Module, image: torch.Tensor, samples: int) -> None:
    """Run ``samples`` passes with the dropout of torch, without accumulating results."""
    for layer in dropout_layers(network):
        layer.train()
    plain(network, image, samples)
    network.eval()


def seconds(
    run: Callable[[nn.Module, torch.Tensor, int], None], network: nn.Module, image: torch.Tensor, n: int
) -> float:
    """Return the time of a method in seconds."""
    start = perf_counter()
    run(network, image, n)
    return perf_counter() - start


def peak(name: str, size: int, samples: int) -> float:
    """Return the peak resident set size, in MB, of a process that samples a network."""
    argv = [sys.executable, __file__, "--peak", name, "--size", str(size), "--samples", str(samples)]
    return float(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    image = torch.rand(1, 1, *(options.size,) * 3, generator=torch.Generator().manual_seed(0))
    if options.peak:
        with torch.inference_mode():
            sample(build(options.peak, options.size), image, options.samples)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    table = Table(
        "network",
        "plain pass [ms]",
        "MC dropout / plain",
        "MC dropout / torch dropout",
        "MB",
        "MB, ten times the samples",
    )
    for name in options.networks:
        network = build(name, options.size)
        times: dict[str, list[float]] = {"plain": [], "torch_dropout": [], "sample": []}
        with torch.inference_mode():
            sample(network, image, 2)
            for _ in range(options.repeats):
                for run in (plain, torch_dropout, sample):
                    times[run.__name__].append(seconds(run, network, image, options.samples))
        ratios = [
            median(sampled / other for sampled, other in zip(times["sample"], times[method], strict=True))
            for method in ("plain", "torch_dropout")
        ]
        memory = [peak(name, options.size, samples) for samples in (options.samples, 10 * options.samples)]
        milliseconds = 1000 * median(times["plain"]) / options.samples
        table.add_row(
            name, f"{milliseconds:.0f}", *(f"{ratio:.2f}" for ratio in ratios), *(f"{size:.0f}" for size in memory)
        )
    Console().print(table)


if __name__ == "__main__":
    main()
