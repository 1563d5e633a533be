"""The order of samples, which depends only on seed and epoch."""

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from cm_lightning.data.randomness import EpochSampler


@given(
    length=st.integers(1, 40),
    batch=st.integers(1, 5),
    processes=st.integers(1, 4),
    epoch=st.integers(0, 3),
    distinct=st.booleans(),
)
def test_several_processes_take_turns_in_the_order_of_one(length, batch, processes, epoch, distinct):
    arguments = (length, 7, lambda: epoch, 0, distinct)
    one = list(EpochSampler(*arguments))
    several = [list(EpochSampler(*arguments, processes, process)) for process in range(processes)]
    number = {len(samples) for samples in several}
    assert number == {len(EpochSampler(*arguments, processes, 0))} == {-(-length // processes)}
    repeated = list(chain.from_iterable(zip(*several, strict=True)))
    assert repeated[:length] == one
    assert set(repeated) == set(one)
    for step in range(length // (batch * processes)):
        together = set(chain.from_iterable(samples[step * batch : (step + 1) * batch] for samples in several))
        assert together == set(one[step * batch * processes : (step + 1) * batch * processes])


@given(length=st.integers(1, 40), processes=st.integers(1, 3), skip=st.integers(0, 10))
def test_a_resumed_epoch_leaves_out_the_samples_of_its_own_process_once(length, processes, skip):
    for process in range(processes):
        whole = list(EpochSampler(length, 3, lambda: 0, 0, False, processes, process))
        sampler = EpochSampler(length, 3, lambda: 0, skip, False, processes, process)
        assert list(sampler) == whole[skip:]
        assert list(sampler) == whole  # the next epoch
