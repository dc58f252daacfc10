"""The exceptions of the package. Failures of Redis itself are raised only with `on_error="raise"` and by `ping`."""


class CacheError(Exception):
    """The base class of all exceptions of this package."""


class CacheUnavailable(CacheError):
    """Redis cannot be reached or refuses; raised by `ping`, and by other methods only with `on_error="raise"`."""


class WrongEventLoop(CacheError, RuntimeError):
    """A manager or limiter was used in another event loop or process than the one in which it was entered."""


class UnknownCache(CacheError, LookupError):
    """There is no policy of this name; a policy is required so that a misspelled name does not create another cache."""


class RecursiveLoad(CacheError):
    """A load asked for the key that it is loading; it would wait for itself forever."""


class LoadTimeout(CacheError, TimeoutError):
    """A load took longer than the `hard_timeout` of its policy."""
