"""Weights & Biases: where a run is shown, loggers that never stop it, uploads, and the dashboard."""
