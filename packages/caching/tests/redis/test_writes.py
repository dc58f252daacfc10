"""The tracking of refused writes, for one reason after another."""

import pytest

from tequipy_caching.cache.recovery import RecoveryQueue
from tequipy_caching.redis.writes import Writes


def test_redis_is_read_again_whatever_the_last_reason_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that is promoted while its memory is full, and then gets memory, is read from again."""
    monkeypatch.setattr("tequipy_caching.cache.recovery.TRUST_AFTER", 0)
    recovery = RecoveryQueue(lambda: None)
    writes = Writes(lambda: None, recovery.trust_soon, labels={})
    recovery.distrust()
    writes.refuse("READONLY You can't write against a read only replica.", blocked=True)
    writes.refuse("OOM command not allowed when used memory > 'maxmemory'.", blocked=False)
    assert recovery.distrusts_all
    writes.accept()
    assert not recovery.distrusts_all
