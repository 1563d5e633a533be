"""``variability``: trained networks against simulated raters, on one page."""

import shutil

import pandas as pd
import pytest

from cm_lightning.data import Phantom
from cm_lightning.data.phantom import RaterModel
from cm_lightning.main import main


@pytest.fixture
def trained_runs(muscle_set, muscle_arguments, tmp_path):
    """One fold each of a network with one channel and of one with two, and raters of its cases."""
    root = tmp_path / "data"
    shutil.copytree(muscle_set, root)
    phantom = Phantom("muscle", 11, (16, 24, 16), (3.0, 2.4, 6.0), raters=RaterModel(repeats=4, sd=3.0))
    phantom.write(root)
    small = ["--model.network_options={channels: [4, 8], strides: [2]}", "--trainer.max_epochs=1"]
    quiet = ["--pictures.cases=0", "--uncertainty.cases=0", f"--data.root={root}"]
    for mode in ("1ch", "2ch"):
        main(["fit", *muscle_arguments, *small, *quiet, f"--model.input_mode={mode}", f"--experiment={mode}_seed0"])
    return tmp_path / "outputs", root


def test_networks_against_raters_and_again(trained_runs, tmp_path, capsys):
    runs, root = trained_runs
    output = tmp_path / "page"
    words = ["variability", str(runs), "--output", str(output), "--samples", "3", "--frames", "2"]
    with_raters = [*words, "--raters", str(root / "ratersTr"), "--baseline", "1ch"]
    main(with_raters)
    html, markdown = (output / "report.html").read_text(), (output / "report.md").read_text()
    assert "Do confidence maps predict where labels differ?" in markdown
    assert "data:image/png;base64" in html
    assert {path.stem for path in (output / "figures").glob("*.png")} == {
        *("entropy", "contours", "reliability", "depth", "convergence", "question")
    }
    measures = pd.read_csv(output / "measures.csv")
    assert set(measures["model"]) == {"1ch", "2ch"}
    assert measures.groupby(["model", "case"])["frame"].nunique().eq(2).all()
    energy = measures[measures["measure"] == "energy_labels"].groupby(["case", "frame"])["value"]
    assert energy.nunique().eq(1).all()  # of the labels alone: the same beside both models
    assert pd.read_csv(output / "bins.csv")["count"].sum() > 0

    kept = {path: path.stat().st_mtime_ns for path in (output / "samples").rglob("*.npz")}
    assert len(kept) == 2 * measures.groupby("case")["frame"].nunique().sum()
    main([*with_raters, "--batch_size", "2"])  # which changes no result
    assert {path: path.stat().st_mtime_ns for path in (output / "samples").rglob("*.npz")} == kept
    next(iter(kept)).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"npz cannot be read: .*Delete it, and it is sampled again"):
        main(with_raters)

    main([*words, "--samples", "2"])  # without raters
    markdown = (output / "report.md").read_text()
    assert "What finds error" in markdown
    assert "predict where labels differ" not in markdown
    assert not (output / "figures" / "question.png").exists()

    with pytest.raises(ValueError, match="None of the runs' test cases has labels in"):
        main([*words, "--raters", str(tmp_path / "nowhere")])
    shutil.rmtree(runs / "1ch_seed0" / "fold0" / "checkpoints")
    with pytest.raises(ValueError, match=r"There is no .*best\.ckpt; expected the best weights that fit kept there"):
        main(words)
