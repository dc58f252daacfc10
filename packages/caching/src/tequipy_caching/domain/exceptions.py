"""What can go wrong with a cache; unless it is told to raise, a caller meets none of the store's own faults."""


class CacheError(Exception):
    """The base of all errors of this package."""


class CacheUnavailable(CacheError):
    """Redis cannot be reached: raised by `ping`, and by everything else with `on_error="raise"` alone."""


class WrongEventLoop(CacheError, RuntimeError):
    """A manager or limiter was used in another event loop or process than the one that it belongs to."""


class UnknownCache(CacheError, LookupError):
    """There is no policy of this name: caches are named in the settings, so that a typing error is no new cache."""


class RecursiveLoad(CacheError):
    """A load asked for the very key that it is loading: waiting for itself, it would never end."""


class LoadTimeout(CacheError, TimeoutError):
    """A load took longer than its policy's `hard_timeout`."""
