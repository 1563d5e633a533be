"""Cross-validation: folds as jobs, their pooled results, and their summary in W&B."""
