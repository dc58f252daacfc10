"""Metrics of the connection pool."""

from collections.abc import Callable, Iterable

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Pool, QueuePool


class PoolCollector(Collector):
    """Collects `db_pool_*` at each scrape; `pool` returns None as long as the engine is not built."""

    def __init__(self, pool: Callable[[], Pool | None], *, limit: int) -> None:
        self._pool = pool
        self._limit = limit

    def collect(self) -> Iterable[Metric]:
        """Yield the current counts."""
        pool = self._pool()
        counts = (pool.checkedout(), pool.checkedin(), pool.overflow()) if isinstance(pool, QueuePool) else (0, 0, 0)
        yield GaugeMetricFamily("db_pool_in_use", "Connections that are checked out.", counts[0])
        yield GaugeMetricFamily("db_pool_idle", "Connections that wait in the pool.", counts[1])
        yield GaugeMetricFamily("db_pool_overflow", "Connections open beyond the pool's size.", max(0, counts[2]))
        yield GaugeMetricFamily("db_pool_limit", "Connections that may be open at once.", self._limit)
