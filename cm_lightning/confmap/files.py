"""Input files of ``confmap``, and the files of their maps."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cm_lightning.errors import InputError
from cm_lightning.io import FileImage, image_files, stem

MapFormat = Literal["png", "tif", "nii", "nii.gz", "mha", "nrrd", "npz"]

# Formats of maps by the format of the input; a picture and a sequence in other formats become PNG and MetaImage.
SAME_FORMATS: dict[str, MapFormat] = {
    ".nii.gz": "nii.gz",
    ".nii": "nii",
    ".mha": "mha",
    ".mhd": "mha",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".tif": "tif",
    ".tiff": "tif",
}
# These formats contain a single frame.
PICTURE_FORMATS = ("png",)
PREVIEW = "_preview"


@dataclass(frozen=True)
class InputFile:
    """Image file whose confidence map is wanted.

    Attributes:
        path: The file.
        name: Path relative to the folder in which it was found, or name of the file; used in tables and messages.
        target: Path of the map without its suffix.
    """

    path: Path
    name: str
    target: Path


def find_inputs(paths: Sequence[Path], output: Path) -> list[InputFile]:
    """List the image files among files and in folders, and name their maps.

    Maps have the name and the subfolder of their input, below the name of the given folder if there are several
    folders. If several inputs would have the same name, the suffix of the input becomes a part of it, for example
    ``scan_png`` and ``scan_mha``.

    Args:
        paths: Files, which may have any suffix, and folders, which are searched with their subfolders.
        output: Folder of the maps. Files in it are not inputs, unless it is one of the given folders.

    Returns:
        The files in the order of the arguments, those of a folder in alphabetical order, each only once.

    Raises:
        InputError: A folder contains no image files, or two inputs would have the same map.
    """
    found: dict[Path, Path] = {}
    folder_of_maps = output.resolve()
    several_folders = sum(path.is_dir() for path in paths) > 1
    for path in paths:
        if not path.is_dir():
            found.setdefault(path, Path(path.name))
            continue
        inside = image_files(path, with_subfolders=True)
        if folder_of_maps != path.resolve():
            inside = [file for file in inside if folder_of_maps not in file.resolve().parents]
        if not inside:
            raise InputError(f"The folder {path} contains no image files.")
        for file in inside:
            name = file.relative_to(path)
            found.setdefault(file, path.resolve().name / name if several_folders else name)
    names = Counter(str(name.with_name(stem(name))) for name in found.values())
    inputs: list[InputFile] = []
    targets: dict[Path, Path] = {}
    for file, name in found.items():
        base = name.with_name(stem(name))
        if names[str(base)] > 1:
            base = base.with_name(f"{base.name}_{name.name[len(stem(name)) :].strip('.').replace('.', '_')}")
        other = targets.setdefault(base, file)
        if other != file:
            raise InputError(f"{other} and {file} would have the same map {base}; map them with two calls.")
        inputs.append(InputFile(file, name.as_posix(), output / base))
    return inputs


def map_file(file: InputFile, image: FileImage, chosen: MapFormat | None) -> Path:
    """Return the file of a map.

    Args:
        file: The input.
        image: Its contents.
        chosen: Format of all maps; by default, the format of the input, or a similar one.

    Returns:
        The path, whose suffix is the format.

    Raises:
        InputError: The format does not support sequences, or the map would replace its input.
    """
    suffix = file.path.name[len(stem(file.path)) :].lower()
    default: MapFormat = "png" if image.array.ndim == 2 else "mha"
    form = chosen or SAME_FORMATS.get(suffix, default)
    if form in PICTURE_FORMATS and image.array.ndim > 2:
        raise InputError(f"{file.path} has {image.array.shape[2]} frames, which the format {form} does not support.")
    path = file.target.with_name(f"{file.target.name}.{form}")
    if path.resolve() == file.path.resolve():
        raise InputError(f"The map of {file.path} would replace the file itself; choose another folder for --output.")
    return path


def preview_file(target: Path, frames: int) -> Path:
    """Return the file of the preview of a map with a number of frames; ``target`` is the path without a suffix."""
    return target.with_name(f"{target.name}{PREVIEW}.{'png' if frames == 1 else 'gif'}")
