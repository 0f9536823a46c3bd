"""Memory that a step frees serves the next one."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource
import torch
from advrl.memory import keep_freed_memory

done = keep_freed_memory() if {keep} else False
for _ in range(30):  # of 64 MiB: the first few find their places
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> tuple[str, int]:
    told = subprocess.run(
        [sys.executable, "-c", STEPS.format(keep=keep)], capture_output=True, text=True, check=True
    ).stdout.split()
    return told[0], int(told[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to keep memory")
def test_freed_memory_is_not_fetched_again():
    """Ten arrays of 64 MiB: without it the pages of each are new, with it they are those of the one before."""
    done, kept = faults(True)
    _, fetched = faults(False)
    assert done == "True"
    assert kept < 0.1 * fetched


def test_other_systems_are_left_alone(monkeypatch):
    from advrl.memory import keep_freed_memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
