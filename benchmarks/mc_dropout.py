"""Time and memory of sampling networks with dropout, beside as many plain passes.

    python benchmarks/mc_dropout.py [--size 64] [--samples 5] [--repeats 5] [--threads 2] [--networks UNet]

In one process, turn about: passes without dropout, passes with torch's own dropout switched on, and ``sample_dropout``,
which seeds every mask and sums up mean, entropies, variance and votes. Memory is the largest resident set of a process
of its own that takes few samples, and of one that takes ten times as many.
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
    """Build a network of the study's sizes (UNETR smaller, for a laptop), for three classes in 3D."""
    torch.manual_seed(0)
    return create_network(name, 3, 1, 4, (size,) * 3, **NETWORKS[name]).eval()  # type: ignore[arg-type]


def sample(network: nn.Module, image: torch.Tensor, samples: int) -> None:
    """Sample as ``predict`` does."""
    sample_dropout(network, network, image, "case", MCDropout(samples))


def plain(network: nn.Module, image: torch.Tensor, samples: int) -> None:
    """Run as many passes without dropout."""
    for _ in range(samples):
        network(image)


def dropped(network: nn.Module, image: torch.Tensor, samples: int) -> None:
    """Run as many passes with torch's own dropout, keeping nothing."""
    for layer in dropout_layers(network):
        layer.train()
    plain(network, image, samples)
    network.eval()


def seconds(
    run: Callable[[nn.Module, torch.Tensor, int], None], network: nn.Module, image: torch.Tensor, n: int
) -> float:
    """Time a run."""
    start = perf_counter()
    run(network, image, n)
    return perf_counter() - start


def peak(name: str, size: int, samples: int) -> float:
    """Largest resident set in MB of a process that samples a network."""
    words = [sys.executable, __file__, "--peak", name, "--size", str(size), "--samples", str(samples)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print a table in Markdown."""
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
        "network", "plain pass [ms]", "sampled / plain", "sampled / torch's dropout", "MB, few", "MB, ten times"
    )
    for name in options.networks:
        network = build(name, options.size)
        found: dict[str, list[float]] = {"plain": [], "dropped": [], "sample": []}
        with torch.inference_mode():
            sample(network, image, 2)
            for _ in range(options.repeats):
                for run in (plain, dropped, sample):
                    found[run.__name__].append(seconds(run, network, image, options.samples))
        ratios = [
            median(own / other for own, other in zip(found["sample"], found[peer], strict=True))
            for peer in ("plain", "dropped")
        ]
        memory = [peak(name, options.size, samples) for samples in (options.samples, 10 * options.samples)]
        milliseconds = 1000 * median(found["plain"]) / options.samples
        table.add_row(name, f"{milliseconds:.0f}", *(f"{r:.2f}" for r in ratios), *(f"{m:.0f}" for m in memory))
    Console().print(table)


if __name__ == "__main__":
    main()
