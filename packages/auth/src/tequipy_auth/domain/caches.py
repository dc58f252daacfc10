"""The caches of auth."""

from collections.abc import Mapping
from typing import Final

from tequipy_caching import CachePolicy

USER_PROFILE: Final = "user_profile"
"""Profiles by the ids of their users."""

ACCESS_TOKENS: Final = "access_tokens"
"""Access tokens whose signature has been verified."""

ROLES: Final = "config"
"""The roles and their permissions; the cache is built into every manager and shared with other configuration."""

CACHE_POLICIES: Final[Mapping[str, CachePolicy]] = {
    USER_PROFILE: CachePolicy(ttl=300, l1_maxsize=500),
    # Longer than an access token lives by default; a longer life only costs more verifications.
    ACCESS_TOKENS: CachePolicy(ttl=930, l1_maxsize=10_000, tiers="l1"),
}
"""The policies of auth's caches, which the app passes to its cache: `CacheSettings(policies=…)`, or `declared`."""
