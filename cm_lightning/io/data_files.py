"""Files with the pixels of images whose header is a file of its own."""

import re
from pathlib import Path

# Field with the names of the files: MetaImage, and NRRD.
FIELDS = {
    ".mhd": re.compile(r"^\s*ElementDataFile\s*=\s*(.*)$"),
    ".nhdr": re.compile(r"^data ?file\s*:\s*(.*)$", re.IGNORECASE),
}
MAX_HEADER_BYTES = 2**22


def data_files(path: Path) -> list[Path]:
    """List the files with the pixels of an image.

    Args:
        path: Image file.

    Returns:
        Existing files that the header names, in its order; empty for images that contain their pixels.
    """
    field = FIELDS.get(path.suffix.lower())
    if field is None:
        return []
    with path.open("rb") as file:
        lines = file.read(MAX_HEADER_BYTES).decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines):
        match = field.match(line)
        if match is None:
            continue
        name = match[1].strip()
        if name.upper().startswith("LIST"):
            names = [line.strip() for line in lines[number + 1 :]]
        elif "%" in name:
            names = _numbered(name)
        else:
            names = [name]
        return [path.parent / name for name in names if name and (path.parent / name).is_file()]
    return []


def _numbered(text: str) -> list[str]:
    """Return the names of a pattern with its range of numbers, such as ``slice%03d.raw 1 20 1``."""
    pattern, *words = text.split()
    try:
        first, last, step = (int(word) for word in (*words, "1")[:3])
        return [pattern % number for number in range(first, last + 1, max(1, step))]
    except (TypeError, ValueError):
        return []
