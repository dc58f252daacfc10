"""Two API processes behind a balancer that polls readiness are restarted one after the other under load."""

from signal import Signals

import pytest

from tequipy_devstack.proving import (
    Balancer,
    Deployment,
    Load,
    count,
    eventually,
    failed,
    in_background,
    slowest,
    traffic,
)


@pytest.mark.parametrize(
    ("drain_period", "rounds"),
    [
        pytest.param("2", 1, id="short", marks=[pytest.mark.prove, pytest.mark.quick]),
        pytest.param("5", 3, id="long", marks=[pytest.mark.prove, pytest.mark.timeout(300)]),
    ],
)
def test_a_rolling_restart_loses_no_request(deployment: Deployment, drain_period: str, rounds: int) -> None:
    """Of 70 requests a second through the balancer none fails while each process gets SIGTERM and is started again.

    This includes keep-alive connections, which a draining process closes with its next response.
    """
    one, other = (deployment.api(TEQUIPY_SERVER__DRAIN_PERIOD=drain_period) for _ in range(2))
    with one, other, in_background(Balancer([one.port, other.port])) as balancer:
        eventually("the balancer sees both", lambda: len(balancer.ready) == 2)
        with Load(balancer.url, traffic(balancer.url), rate=70) as load:
            for api in [one, other] * rounds:
                load.send(100)
                assert api.terminate() == -Signals.SIGTERM
                api.start()
                eventually("the balancer sees both again", lambda: len(balancer.ready) == 2)
            load.send(max(100, 1000 - len(load.samples)))
    print(
        f"\n{2 * rounds} restarts behind a balancer: {len(load.samples)} requests, "
        f"failed {len(failed(load.samples))}, slowest {slowest(load.samples):.2f} s"
    )
    assert len(load.samples) >= 1000
    assert count(failed(load.samples)) == {}
