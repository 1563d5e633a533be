"""Which pixels of a frame are insonified, and which of them lie at the probe and at the far end."""

from cm_lightning.confidence.domain.fan import Fan, Insonified, find_fan, find_insonified, linear_probe_domain

__all__ = ["Fan", "Insonified", "find_fan", "find_insonified", "linear_probe_domain"]
