"""The command line: table, page, configuration, and invalid input."""

import base64
import csv
import io
import json
import re

import numpy as np
import pytest
import yaml
from PIL import Image

from cm_lightning.commands.inspect import run
from cm_lightning.data import Phantom
from cm_lightning.errors import InputError, UsageError
from cm_lightning.io import read_image, write_meta_image
from cm_lightning.main import main


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    """Run all commands in a temporary folder."""
    monkeypatch.chdir(tmp_path)


def inspect(*arguments):
    """Run the command and return its status."""
    try:
        main(["inspect", *map(str, arguments)])
    except SystemExit as end:
        return end.code
    return 0


def rows_of(output):
    with (output / "cases.csv").open(newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def fit(path, *arguments):
    main(
        [
            "fit",
            f"--config={path}",
            "--trainer.max_epochs=1",
            "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false",
            "--pictures.cases=0",
            *arguments,
        ]
    )


def test_frames_to_a_trained_network(nnunet_set, tmp_path, no_pictures, capsys):
    (tmp_path / "data").mkdir()
    nnunet_set.rename(tmp_path / "data" / "Dataset001_Leg")
    assert inspect("data/Dataset001_Leg", "--write_config", "my.yaml") == 0
    output = tmp_path / "outputs" / "inspection" / "Dataset001_Leg"
    row = rows_of(output)["a0"]
    assert (row["shape"], row["spacing_mm"], row["volume_unit"]) == ("64 x 48", "", "px")
    assert (row["no_voxels"], row["left_right_atrium_voxels"], row["label_values"]) == ("20", "25", "0 1 2 3")
    assert rows_of(output)["a1"]["left_right_atrium_voxels"] == "0"
    assert {row["test_fold"] for row in rows_of(output).values()} == {"0", "1", "2"}
    printed = capsys.readouterr().out
    assert "layout nnunet, 6 cases" in printed
    assert "The class left_right_atrium (value 2) is in 1 of 6 labels" in printed

    config = yaml.safe_load((tmp_path / "my.yaml").read_text())
    data = config["data"]
    assert data["classes"] == {"no": 1, "left_right_atrium": 2, "ignore": 3}
    assert (data["root"], data["layout"], data["axes"]) == ("data/Dataset001_Leg", "nnunet", "depth lateral")
    assert (data["spatial_dims"], data["spatial_size"], data["image_folds"]) == (2, [64, 48], True)
    model = config["model"]["init_args"]
    assert (model["batch_dice"], model["schedule"], model["mirroring"]) == (True, "polynomial", [])
    assert data["augmentation"]["flip"] == 0.0
    fit("my.yaml")
    # The proposed folds are those of the training.
    stored = json.loads(next((tmp_path / "outputs" / "cache" / "splits").iterdir()).read_text())
    tested = {patient: str(number) for number, fold in enumerate(stored["folds"]) for patient in fold["test"]}
    assert tested == {row["patient"]: row["test_fold"] for row in rows_of(output).values()}
    assert (tmp_path / "outputs" / "Dataset001_Leg" / "fold0" / "checkpoints" / "last.ckpt").is_file()
    # The configuration is valid for the data set from which it was made.
    assert inspect("data/Dataset001_Leg", "--config", "my.yaml") == 0


def test_volumes_to_a_trained_network(tmp_path, no_pictures):
    Phantom("muscle", patients=4, size=(32, 24, 16), spacing=(1.5, 2.4, 6.0)).write(tmp_path / "muscle")
    assert inspect(tmp_path / "muscle", "--write_config", "configs/my.yaml", "--output", "seen") == 0
    rows = rows_of(tmp_path / "seen")
    label = read_image(next((tmp_path / "muscle").glob("*/phantom00/masksX1.mha"))).array
    row = rows["phantom00_x1"]
    assert (row["patient"], row["shape"], row["spacing_mm"]) == ("phantom00", "24 x 32 x 16", "2.4 x 1.5 x 6")
    assert int(row["soleus_voxels"]) == (label == 100).sum()
    assert float(row["soleus_volume"]) == pytest.approx((label == 100).sum() * 2.4 * 1.5 * 6, rel=1e-5)
    data = yaml.safe_load((tmp_path / "configs" / "my.yaml").read_text())["data"]
    assert data["axes"] == "lateral depth elevation"
    assert data["patch_size"] == [32, 24, 16]
    assert data["spacing"] == pytest.approx([1.5, 2.4, 6.0])
    assert "image_folds" not in data
    assert list(data["classes"]) == ["soleus", "gastrocnemius_medialis", "gastrocnemius_lateralis"]
    fit("configs/my.yaml")
    assert (tmp_path / "outputs" / "muscle" / "fold0" / "checkpoints" / "best.ckpt").is_file()


def test_page_is_self_contained_and_shows_labels(write_frames, tmp_path):
    write_frames(tmp_path / "set", "{}.png", "{}_mask.png", count=4, value=255)
    assert inspect("set") == 0
    page = (tmp_path / "outputs" / "inspection" / "set" / "inspection.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert len(pictures) == 4
    assert "class_255: 255" in page
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[0])))).astype(int)
    assert picture.shape[0] == 260  # the longest side
    red = picture[..., 0] - picture[..., 2]
    assert red[60:110, 80:115].mean() > red[200:].mean() + 20


def test_problems_of_cases_do_not_stop_the_others(write_frames, frame, tmp_path, capsys):
    write_frames(tmp_path / "set", "images/{}.png", "masks/{}.png", count=8)
    images, masks = tmp_path / "set" / "images", tmp_path / "set" / "masks"
    Image.fromarray(frame()[1][:-1]).save(masks / "a1.png")
    (images / "a2.png").write_bytes(b"no picture")
    (masks / "a3.png").unlink()
    (images / "a5.png").write_bytes((images / "a4.png").read_bytes())
    Image.fromarray(np.roll(frame()[1], 1, 0) | np.eye(64, 48, dtype=np.uint8)).save(masks / "a5.png")
    Image.fromarray(0 * frame()[1]).save(masks / "a6.png")
    assert inspect("set", "--output", "seen", "--write_config", "my.yaml") == 1
    rows = rows_of(tmp_path / "seen")
    assert len(rows) == 8
    assert (
        "has the shape (63, 48); expected (64, 48), the shape of its image set/images/a1.png" in rows["a1"]["problems"]
    )
    assert "set/images/a2.png cannot be read as a picture" in rows["a2"]["problems"]
    assert "has no label; expected set/masks/a3.png" in rows["a3"]["problems"]
    assert (
        "set/images/a4.png and set/images/a5.png contain the same pixels, but their labels differ ({0: "
        in rows["a5"]["problems"]
    )
    assert rows["a4"]["near_duplicate_group"] == rows["a5"]["near_duplicate_group"]
    assert "contains no class" in rows["a6"]["problems"]
    assert rows["a7"]["problems"] == ""
    captured = capsys.readouterr()
    assert "fit would refuse this data set because of 3 problems" in captured.err
    assert "grid of the label (1), refused by fit" in captured.out
    assert "fit will refuse this data set: the inspection found 3 problems" in (tmp_path / "my.yaml").read_text()
    with pytest.raises(
        InputError, match=r"a1.png has the shape \(63, 48\)|a2.png cannot be read|a3.png does not exist"
    ):
        fit("my.yaml")


def test_configuration_is_checked(write_frames, tmp_path):
    write_frames(tmp_path / "set", "images/{}.png", "masks/{}.png", count=6, value=3)
    assert inspect("set", "--write_config", "my.yaml") == 0
    text = (tmp_path / "my.yaml").read_text()
    changed = re.sub(r"class_3: 3.*", "nerve: 1", text).replace("image_folds: true", "image_folds: false")
    (tmp_path / "my.yaml").write_text(changed)
    assert inspect("set", "--config", "my.yaml", "--output", "seen") == 1
    row = rows_of(tmp_path / "seen")["a0"]
    assert "contains the unknown values [3]; expected 0 for background and 1 for nerve" in row["problems"]
    page = (tmp_path / "seen" / "inspection.html").read_text()
    assert "The patients are unknown" in page
    assert "No label contains the class nerve (value 1)" in page


def test_volumes_among_frames(write_frames, tmp_path, rng):
    write_frames(tmp_path / "set", "images/{}.png", "masks/{}.png", count=4)
    write_meta_image(tmp_path / "set" / "images" / "b.mha", rng.integers(1, 9, (5, 6, 7), np.uint8), (1.0, 1.0, 1.0))
    write_meta_image(tmp_path / "set" / "masks" / "b.mha", np.ones((5, 6, 7), np.uint8), (1.0, 1.0, 1.0))
    assert inspect("set", "--output", "seen") == 1
    assert "has the shape (5, 6, 7); expected 2 axes as in most files" in rows_of(tmp_path / "seen")["b"]["problems"]


def test_invalid_input_writes_nothing(write_frames, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="There are no labelled images in empty"):
        inspect("empty", "--write_config", "my.yaml")
    root = write_frames(tmp_path / "set", "images/{}.png", "masks/{}.png", count=3)
    for path in (root / "images").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"None of the 3 images in set can be used\. The first problem is: "):
        inspect("set", "--write_config", "my.yaml")
    write_frames(root, "images/{}.png", "masks/{}.png", count=3, value=0)
    with pytest.raises(InputError, match="No label in set contains a value other than 0"):
        inspect("set", "--write_config", "my.yaml")
    (tmp_path / "mine.yaml").write_text("mine")
    with pytest.raises(InputError, match=r"mine.yaml exists; choose another name for --write_config"):
        inspect("set", "--write_config", "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "set", "mine.yaml"}


def test_existing_configuration_is_replaced_on_request(write_frames, tmp_path):
    write_frames(tmp_path / "set", "images/{}.png", "masks/{}.png", count=3)
    (tmp_path / "my.yaml").write_text("mine")
    assert inspect("set", "--write_config", "my.yaml", "--overwrite") == 0
    assert yaml.safe_load((tmp_path / "my.yaml").read_text())["experiment"] == "set"


def test_exclusive_options():
    with pytest.raises(UsageError, match="cannot be combined"):
        run(["set", "--config=a.yaml", "--write_config=b.yaml"])
