"""Tasks in threads, whose results come in order."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event

import pytest

from mambair_cli.runs.in_order import results_in_order


def test_results_come_in_the_order_of_the_items() -> None:
    waits = random.Random(0)

    def double(number: int) -> int:
        time.sleep(waits.uniform(0, 0.01))
        return 2 * number

    with ThreadPoolExecutor(3) as executor:
        results = list(results_in_order(iter(range(30)), executor, double, 4))
    assert results == [(number, 2 * number) for number in range(30)]


def test_no_more_items_are_taken_than_may_wait() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with (
        ThreadPoolExecutor(2) as executor,
        closing(results_in_order(items(), executor, str, 3)) as results,
    ):
        assert [result for _, result in (next(results), next(results))] == ["0", "1"]
        assert len(taken) <= 5


def test_after_an_error_nothing_runs_that_has_not_begun() -> None:
    may_end, run = Event(), []

    def work(number: int) -> None:
        if number == 0:
            raise KeyError("first")
        run.append(number)
        may_end.wait(5)

    may_end.set()
    with ThreadPoolExecutor(1) as executor:
        results = results_in_order(iter(range(9)), executor, work, 4)
        with closing(results), pytest.raises(KeyError, match="first"):
            next(results)
        assert len(run) <= 4
        before = list(run)
    assert run == before


def test_an_error_of_the_source_of_items_is_raised_after_the_tasks_have_ended() -> None:
    ended: list[int] = []

    def items() -> Iterator[int]:
        yield 1
        raise OSError("no more")

    def work(number: int) -> None:
        time.sleep(0.02)
        ended.append(number)

    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(OSError, match="no more"):
            list(results_in_order(items(), executor, work, 4))
        assert ended in ([], [1])
        before = list(ended)
    assert ended == before
