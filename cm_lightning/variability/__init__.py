"""Predictive uncertainty and rater variability, and their relation to confidence."""
