"""The caches of auth."""

from collections.abc import Mapping
from typing import Final

from tequipy_caching import CachePolicy

USER_PROFILE: Final = "user_profile"
"""Profiles by the ids of their users."""

ACCESS_TOKENS: Final = "access_tokens"
"""Access tokens whose signature has been verified."""

# `config` is built into every cache manager for values that are few and change rarely, as roles do; another name
# would change the keys in Redis and the variables that operators set. Declared here too, so that the list is complete.
ROLES: Final = "config"
"""The roles and their permissions."""

CACHE_POLICIES: Final[Mapping[str, CachePolicy]] = {
    USER_PROFILE: CachePolicy(ttl=300, l1_maxsize=500),
    # Exceeds the default ttl of an access token; tokens with a longer ttl are only verified more often.
    ACCESS_TOKENS: CachePolicy(ttl=930, l1_maxsize=10_000, tiers="l1"),
    ROLES: CachePolicy(ttl=600, l1_maxsize=100, fail_safe=3600),
}
"""The policies of auth's caches, which the app passes to its cache: `CacheSettings(policies=…)`, or `declared`."""
