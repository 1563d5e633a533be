"""Evaluation of finished runs: pooled folds, statistics, tables, figures and the report."""

from cm_lightning.evaluation.pooling import pool_folds

__all__ = ["pool_folds"]
