"""Cross-validation: folds as jobs, their pooled tables, and the run in which W&B shows all of them."""
