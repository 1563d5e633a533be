"""Tests, intervals and verdicts: arrays in, numbers out. What each of them means is described in docs/statistics.md."""
