"""What a cache promises: keys, policies, fences, one load for all who wait. Standard library only."""
