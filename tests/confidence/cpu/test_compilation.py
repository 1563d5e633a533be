"""Tests of the compilation of the CPU solver with outdated cached code."""

from types import SimpleNamespace

import pytest

from cm_lightning.confidence.cpu import compilation


def test_cached_code_with_a_missing_class_is_removed_and_compiled_again(tmp_path, monkeypatch):
    stale, unrelated = tmp_path / "factorise_lanes-31.py311.nbi", tmp_path / "lanes.pyc"
    for file in (stale, unrelated):
        file.touch()

    def solve_with_cache(double, small):
        if stale.exists():
            raise ModuleNotFoundError("No module named 'cm_lightning.confidence.network'")

    stats = SimpleNamespace(cache_path=str(tmp_path))
    monkeypatch.setattr(compilation, "factorise_lanes", SimpleNamespace(stats=stats))
    monkeypatch.setattr(compilation, "_solve_test_system", solve_with_cache)
    compilation.compile_once.__wrapped__(double=False, small=True)
    assert not stale.exists()
    assert unrelated.exists()


def test_errors_not_due_to_cached_code_are_raised(tmp_path, monkeypatch):
    def fail(double, small):
        raise ImportError("missing module")

    stats = SimpleNamespace(cache_path=str(tmp_path))
    monkeypatch.setattr(compilation, "factorise_lanes", SimpleNamespace(stats=stats))
    monkeypatch.setattr(compilation, "_solve_test_system", fail)
    with pytest.raises(ImportError, match="missing module"):
        compilation.compile_once.__wrapped__(double=False, small=True)
