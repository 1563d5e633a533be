"""Classes that differ by their side, for which a mirrored image would have a wrong label."""

import re
from collections.abc import Collection, Iterable

from cm_lightning.errors import InputError

# Words in the names of such classes. Heads of a muscle may be medial or lateral: the mirrored image is that of the
# other leg, so that these words are only a reason not to propose mirroring.
SIDES = ("left", "right")
HEADS = ("medial", "lateral")


def sided_classes(names: Iterable[str], words: Collection[str] = SIDES) -> list[str]:
    """List the classes whose names contain a word for a side.

    Args:
        names: Names of the classes.
        words: Beginnings of words, such as "lateral" for "gastrocnemius_lateralis".

    Returns:
        Names in their order.
    """
    pattern = re.compile(rf"(?:^|[\W_\d])(?:{'|'.join(words)})", re.IGNORECASE)
    return [name for name in names if pattern.search(name)]


def check_mirroring(names: Collection[str], options: Iterable[str]) -> None:
    """Check that no class differs by its side, if images are mirrored laterally.

    Args:
        names: Names of the classes.
        options: Options that mirror images, with their values.

    Raises:
        InputError: The names of classes contain "left" or "right".
    """
    sided, options = sided_classes(names), list(options)
    if not sided or not options:
        return
    sides = {side for side in SIDES if sided_classes(sided, [side])}
    found = "classes of both sides" if len(sides) == 2 else f"a class of the {sides.pop()} side only"
    raise InputError(
        f"{' and '.join(options)} would mirror images laterally, in which {found} ({', '.join(sided)}) would have a "
        "wrong label; expected data.augmentation.flip 0, and no lateral in model.mirroring."
    )
