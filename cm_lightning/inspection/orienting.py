"""Better axes for files that do not state theirs, judging by their frames."""

from collections.abc import Sequence

from cm_lightning.inspection.findings import Findings
from cm_lightning.inspection.proposal import Choice, propose_axes

EXCHANGED = {"depth": "lateral", "lateral": "depth"}


def better_axes(findings: Sequence[Findings], before: Choice[str] | None) -> Choice[str] | None:
    """Return axes with which most frames stand upright, if they do not yet.

    Depth and lateral are exchanged first, and then depth is reversed, so that at most two changes are tried.

    Args:
        findings: Findings of the cases.
        before: Axes that were chosen by an earlier call; None if files were read with the usual axes.

    Returns:
        Axes that should be tried; None if the present ones are good, or the files state them.
    """
    regions = [case.region for case in findings if case.region is not None and not case.states_axes]
    if not regions or "-depth" in (before.value if before is not None else ""):
        return None
    axes = propose_axes(findings).value
    present = " ".join(word for word in axes.split())
    if before is None and sum(region.lies_on_its_side for region in regions) > len(regions) / 2:
        exchanged = " ".join(EXCHANGED.get(word, word) for word in present.split())
        return Choice(exchanged, f"with {present!r}, most frames lie on their side, judging by their texture")
    if sum(region.side == "bottom" for region in regions) > len(regions) / 2:
        reason = f"with {present!r}, the probe is at the bottom of most frames"
        return Choice(present.replace("depth", "-depth"), f"{before.reason}; {reason}" if before else reason)
    return None
