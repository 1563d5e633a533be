"""Confidence maps on the CPU: frames side by side on all cores, each solved by compiled single-threaded code."""
