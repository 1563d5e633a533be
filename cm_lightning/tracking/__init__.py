"""Weights & Biases: settings, loggers, pictures, upload of offline runs, and the dashboard."""
