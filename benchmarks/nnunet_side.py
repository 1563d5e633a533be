"""Training and prediction of nnU-Net, in the environment that ``benchmarks/nnunet.py`` makes.

    PYTHON_OF_NNUNET benchmarks/nnunet_side.py FOLDER NUMBER CONFIGURATION --seed 0 --epochs 60 --steps 25

Only this script imports nnU-Net. Plans and preprocessed cases are expected in the folders of nnU-Net's environment
variables, with the split in ``splits_final.json``. It writes checkpoints, the probabilities of the images in
``imagesTs`` with and without mirroring, and ``times.json``.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name


def main() -> None:
    """Train, and predict the test images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("number", type=int)
    parser.add_argument("configuration")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    random.seed(options.seed)
    np.random.seed(options.seed)  # noqa: NPY002  # nnU-Net draws from this state
    torch.manual_seed(options.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    name = convert_id_to_dataset_name(options.number)
    plans = {**load_json(str(Path(nnUNet_preprocessed, name, "nnUNetPlans.json"))), "continue_training": False}
    description = load_json(str(Path(nnUNet_preprocessed, name, "dataset.json")))
    trainer = nnUNetTrainer(plans, options.configuration, 0, description, device=device)
    trainer.num_epochs = options.epochs
    trainer.num_iterations_per_epoch = options.steps
    trainer.num_val_iterations_per_epoch = 2  # only for its own curve, so that its time is that of training
    start, cpu = time.perf_counter(), time.process_time()
    trainer.run_training()
    times = {"fit_s": time.perf_counter() - start, "fit_cpu_s": time.process_time() - cpu}
    times["samples"] = options.epochs * options.steps * trainer.batch_size
    times |= {"parameters": sum(weights.numel() for weights in trainer.network.parameters())}

    model = Path(trainer.output_folder).parent
    for mirrored in (False, True):
        predictor = nnUNetPredictor(use_mirroring=mirrored, device=device, perform_everything_on_device=False)
        predictor.initialize_from_trained_model_folder(str(model), (0,), "checkpoint_final.pth")
        images = sorted(Path(nnUNet_raw, name, "imagesTs").iterdir())
        target = options.folder / ("mirrored" if mirrored else "plain")
        target.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        predictor.predict_from_files_sequential(
            [[str(image)] for image in images],
            [str(target / image.name.split("_0000")[0]) for image in images],
            save_probabilities=True,
        )
        times["mirrored_s" if mirrored else "predict_s"] = time.perf_counter() - start
    (options.folder / "times.json").write_text(json.dumps(times))


if __name__ == "__main__":
    main()
