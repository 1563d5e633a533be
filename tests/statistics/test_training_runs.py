"""Tests over training runs: closed forms, statsmodels, and simulations without any difference."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cm_lightning.statistics.ranks import difference
from cm_lightning.statistics.signed_rank import signed_rank_p
from cm_lightning.statistics.training_runs import run_level_mean

# SDs of a difference in Dice: between runs (fold and seed), between participants, and of the residuals.
RUN_SD, PARTICIPANT_SD, RESIDUAL_SD = 0.028, 0.05, 0.1


def simulate(generator, participants=179, folds=3, seeds=3, run_sd=RUN_SD, participant_sd=PARTICIPANT_SD, shift=0.0):
    """Return differences between two models, ``(participants, seeds)``, and the fold of every participant."""
    fold = np.arange(participants) % folds
    runs = generator.normal(0, run_sd, (folds, seeds))
    values = shift + runs[fold] + generator.normal(0, participant_sd, (participants, 1))
    return values + generator.normal(0, RESIDUAL_SD, (participants, seeds)), fold


def rejections(number, **settings):
    """Return how often the test over runs and that over participants reject, as fractions."""
    data = [simulate(np.random.default_rng([7, index]), **settings) for index in range(number)]
    over_runs = np.mean([run_level_mean(values, fold).p < 0.05 for values, fold in data])
    return over_runs, np.mean([signed_rank_p(values.mean(axis=1)) < 0.05 for values, _ in data])


def test_two_by_two_design_by_hand():
    # One fold; participants 1 and 3, seeds +-1, no residual: means of participants 1 and 3, of runs 1 and 3.
    values, fold = np.array([[0.0, 2.0], [2.0, 4.0]]), np.zeros(2)
    estimate = run_level_mean(values, fold)
    # Mean squares: participants 2 (1 + 1) = 4, runs 4, residual 0; variance of the mean (4 + 4 - 0) / 4 = 2.
    assert (estimate.mean, estimate.standard_error**2) == pytest.approx((2.0, 2.0))
    assert estimate.degrees_of_freedom == pytest.approx(2.0)  # 2^2 / (1^2 / 1 + 1^2 / 1)
    assert estimate.p == pytest.approx(2 * stats.t.sf(np.sqrt(2), 2))
    low, high = estimate.interval()
    assert (low + high) / 2 == pytest.approx(2.0)
    assert high - 2 == pytest.approx(stats.t.ppf(0.975, 2) * np.sqrt(2))


def test_reduces_to_known_tests():
    rng = np.random.default_rng(0)
    # Seeds that give equal values add no information: the t test over participants.
    values = np.repeat(rng.normal(0.2, 1, (12, 1)), 3, axis=1)
    assert run_level_mean(values, np.zeros(12)).p == pytest.approx(stats.ttest_1samp(values[:, 0], 0).pvalue)
    # Participants that give equal values add none, either: the t test over the seeds.
    values = np.repeat(rng.normal(0.2, 1, (1, 4)), 12, axis=0)
    assert run_level_mean(values, np.zeros(12)).p == pytest.approx(stats.ttest_1samp(values[0], 0).pvalue)
    # Every participant has networks of its own.
    values = rng.normal(0.2, 1, (12, 3))
    assert run_level_mean(values, np.arange(12)).p == pytest.approx(stats.ttest_1samp(values.mean(axis=1), 0).pvalue)
    constant = run_level_mean(np.full((4, 2), 0.5), np.zeros(4))
    assert (constant.p, constant.interval()) == (0, (0.5, 0.5))
    assert run_level_mean(np.zeros((4, 2)), np.zeros(4)).p == 1


def test_agrees_with_the_mixed_model_of_statsmodels():
    from statsmodels.regression.mixed_linear_model import MixedLM

    values, fold = simulate(np.random.default_rng(3), participants=45, participant_sd=0.15, run_sd=0.08)
    table = pd.DataFrame(values, index=pd.MultiIndex.from_arrays([fold, range(45)], names=["fold", "participant"]))
    table = table.stack().rename_axis(["fold", "participant", "seed"]).rename("value").reset_index()
    components = {"participant": "0 + C(participant)", "seed": "0 + C(seed)"}
    fit = MixedLM.from_formula(
        "value ~ C(fold, Sum)", table, groups="fold", re_formula="0", vc_formula=components
    ).fit()
    estimate = run_level_mean(values, fold)
    assert estimate.mean == pytest.approx(fit.fe_params["Intercept"], abs=1e-6)
    assert estimate.standard_error == pytest.approx(fit.bse_fe["Intercept"], rel=1e-3)


def test_null_simulation_and_power():
    over_runs, over_participants = rejections(300)
    assert 0.02 <= over_runs <= 0.08
    assert over_participants > 0.2  # the fault: networks taken as fixed
    assert rejections(100, shift=0.05)[0] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"run_sd": 0.0},
        {"participant_sd": 0.0},
        {"seeds": 2},
        {"participants": 16},
        {"participants": 16, "seeds": 2},
        {"participants": 40, "folds": 5},
    ],
)
def test_null_simulations(settings):
    assert 0.02 <= rejections(2000, **settings)[0] <= 0.08


def test_invalid_values_raise_errors():
    for values in (np.ones((4, 1)), np.ones((1, 4)), np.full((4, 2), np.nan), np.ones(4)):
        with pytest.raises(ValueError, match="at least two participants and two seeds"):
            run_level_mean(values, np.zeros(len(values)))


def test_equal_models_do_not_differ_by_rounding_errors():
    values, fold = simulate(np.random.default_rng(0), participants=9)
    assert run_level_mean(difference(values + 0.1 - 0.1, values), fold).p == 1
