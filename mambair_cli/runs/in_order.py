"""Tasks in threads whose results come in the order of what they were begun for."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, wait
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def results_in_order(
    items: Iterator[Item], executor: Executor, task: Callable[[Item], Result], ahead: int
) -> Generator[tuple[Item, Result]]:
    """Run a task for each item, and yield item and result in the order of the items.

    No task is left when the generator has ended or is closed.

    Args:
        items: Items, which are taken in this thread.
        executor: Runs the tasks.
        task: The task.
        ahead: Number of items that are taken before the first result is waited for.
    """
    begun: deque[tuple[Item, Future[Any]]] = deque()
    try:
        for item in items:
            begun.append((item, executor.submit(task, item)))
            if len(begun) > ahead:
                yield begun[0][0], begun[0][1].result()
                begun.popleft()
        while begun:
            yield begun[0][0], begun[0][1].result()
            begun.popleft()
    finally:
        for _, future in begun:
            future.cancel()
        wait([future for _, future in begun])
