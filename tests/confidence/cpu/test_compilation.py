"""Compiled code of an earlier version does not stop the solver."""

from types import SimpleNamespace

import pytest

from cm_lightning.confidence.cpu import compilation


def test_compiled_code_that_names_a_missing_class_is_removed_and_compiled_again(tmp_path, monkeypatch):
    stale, unrelated = tmp_path / "factorise-31.py311.nbi", tmp_path / "elimination.pyc"
    for file in (stale, unrelated):
        file.touch()

    def solve_with_cache(double):
        if stale.exists():
            raise ModuleNotFoundError("No module named 'cm_lightning.confidence.network'")

    monkeypatch.setattr(compilation, "factorise", SimpleNamespace(stats=SimpleNamespace(cache_path=str(tmp_path))))
    monkeypatch.setattr(compilation, "_solve_smallest_system", solve_with_cache)
    compilation.compile_once.__wrapped__(double=False)
    assert not stale.exists()
    assert unrelated.exists()


def test_an_error_that_is_not_of_the_cache_is_raised(tmp_path, monkeypatch):
    def fail(double):
        raise ImportError("no such thing")

    monkeypatch.setattr(compilation, "factorise", SimpleNamespace(stats=SimpleNamespace(cache_path=str(tmp_path))))
    monkeypatch.setattr(compilation, "_solve_smallest_system", fail)
    with pytest.raises(ImportError, match="no such thing"):
        compilation.compile_once.__wrapped__(double=False)
