"""The memory of an API process under load."""

import time
from statistics import median

import psutil
import pytest

from tequipy_devstack.proving import Deployment, Load
from tequipy_devstack.proving.traffic import traffic

GROWTH = 1.05


@pytest.mark.prove
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(30, id="short", marks=pytest.mark.timeout(300)),
        pytest.param(600, id="long", marks=pytest.mark.timeout(1200)),
    ],
)
def test_the_memory_of_the_api_stays_flat_under_load(deployment: Deployment, seconds: int) -> None:
    """After a warm-up, the resident memory in the last quarter of the load is that of the second quarter."""
    with deployment.api() as api:
        process, samples = psutil.Process(api.pid), list[int]()
        with Load(api.url, traffic(api.url), rate=40) as load:
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                load.send(20)
                samples.append(process.memory_info().rss // 1024)
    quarter = len(samples) // 4
    early, late = median(samples[quarter : 2 * quarter]), median(samples[-quarter:])
    print(f"\nresident after {seconds} s and {len(load.samples)} requests: {early / 1024:.1f} to {late / 1024:.1f} MiB")
    assert all(sample.good for sample in load.samples)
    assert late <= GROWTH * early
