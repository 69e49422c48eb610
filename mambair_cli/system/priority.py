"""Keep libraries from taking the processors for themselves."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_TASKS = "/proc/self/task"


@contextmanager
def kept_priority() -> Iterator[None]:
    """Keep the priority of all threads as it was before the block, and that of this thread for new ones.

    Run as root, as in containers, SVT-AV1 gives its threads real-time priority, and the one that opens it,
    too. All threads that this one begins later have it then, and nothing else on the machine gets a turn
    while one of them computes.
    """
    before = _read_policies()
    try:
        yield
    finally:
        own = before.get(threading.get_native_id())
        for number, policy in _read_policies().items():
            wanted = before.get(number, own)
            if wanted is not None and policy != wanted:
                with suppress(OSError):  # it has ended
                    os.sched_setscheduler(number, wanted[0], os.sched_param(wanted[1]))


def _read_policies() -> dict[int, tuple[int, int]]:
    """Return the policy and the priority of each thread of this process; none where the system is another."""
    policies = {}
    with suppress(OSError):
        for name in os.listdir(_TASKS):
            number = int(name)
            with suppress(OSError):  # it has ended
                policies[number] = os.sched_getscheduler(number), os.sched_getparam(number).sched_priority
    return policies
