"""The cache engine: rules of lookups, loads and invalidations, without Redis."""
