"""Gathering of objects and cases from several processes."""

from cm_lightning.tasks.distributed import gather_cases, gather_objects


def test_one_process_gets_a_copy():
    items = [1, 2]
    assert gather_objects(items) == items
    assert gather_objects(items) is not items
    cases = {"a": 1}
    assert gather_cases(cases) == cases
    assert gather_cases(cases) is not cases


def test_objects_are_in_the_order_of_the_ranks(two_processes):
    def gather(rank):
        return gather_objects([f"{rank}{i}" for i in range(rank + 1)])

    assert two_processes(gather) == [["00", "10", "11"]] * 2


def test_repeated_cases_are_counted_once(two_processes):
    def gather(rank):
        return gather_cases({"repeated": 7, f"case{rank}": rank})

    assert two_processes(gather) == [{"repeated": 7, "case0": 0, "case1": 1}] * 2
