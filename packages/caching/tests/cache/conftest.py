"""Fixtures: a server of the test, and each way to make it refuse writes."""

import pytest

from tequipy_devstack.servers import ValkeyServer

from .refusals import REFUSALS, Refusal, give_rights


@pytest.fixture(params=REFUSALS)
def refusal(request: pytest.FixtureRequest) -> Refusal:
    return REFUSALS[request.param]


@pytest.fixture
async def server(private_redis: ValkeyServer) -> ValkeyServer:
    await give_rights(private_redis)
    return private_redis
