"""From the rows of tests to tables: folds pooled, means and spreads over patients and over folds."""

from cm_lightning.evaluation.pooling import pool_folds

__all__ = ["pool_folds"]
