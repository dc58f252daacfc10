"""The effect of one hostile client on others, measured on a real API process."""

from collections.abc import Sequence

import pytest

from tequipy_devstack.proving import HEALTH, Deployment, Load, Route, Sample, count, failed

pytestmark = pytest.mark.xdist_group("hostile clients")

ATTACKS_PER_SECOND = 10
HEALTH_PER_SECOND = 20


def p95(samples: Sequence[Sample]) -> float:
    """Return the 95th percentile of the response times in milliseconds."""
    seconds = sorted(sample.seconds for sample in samples)
    return seconds[int(len(seconds) * 0.95)] * 1000


def health_beside(url: str, cookie: str, requests: int) -> tuple[list[Sample], list[Sample]]:
    """Return the results of health requests, and of a client that sends this cookie meanwhile."""
    attack = Route("GET", HEALTH.path, 200, headers={"Cookie": cookie})
    with Load(url, [attack], rate=ATTACKS_PER_SECOND) as attacks:
        attacks.send(ATTACKS_PER_SECOND)
        with Load(url, [HEALTH], rate=HEALTH_PER_SECOND) as load:
            load.send(requests)
    return load.samples, attacks.samples


@pytest.mark.parametrize(
    ("size", "requests"),
    [
        pytest.param(8_000, 40, id="8,000 bytes-short"),
        pytest.param(8_000, 600, id="8,000 bytes", marks=pytest.mark.prove),
        pytest.param(60 * 1024, 100, id="60 KiB", marks=[pytest.mark.prove, pytest.mark.timeout(600)]),
    ],
)
def test_a_hostile_cookie_does_not_slow_others(deployment: Deployment, size: int, requests: int) -> None:
    """Health requests are as fast beside quoted cookies full of backslashes as beside plain cookies of that length.

    Python's own parser unquotes such a cookie in quadratic time (CVE-2024-7592).
    """
    quoted = 'refresh="' + '\\"' * ((size - 10) // 2) + '"'
    with deployment.api() as api:
        plain, _ = health_beside(api.url, "refresh=" + "x" * (size - 8), requests)
        evil, attacks = health_beside(api.url, quoted, requests)
    print(
        f"\n{len(attacks)} cookies of {size} bytes at {ATTACKS_PER_SECOND}/s: health p95 {p95(evil):.1f} ms, "
        f"beside plain ones {p95(plain):.1f} ms; the cookies were answered {count(attacks)}"
    )
    assert count(failed(evil)) == {}
    assert p95(evil) < 5 * p95(plain)
