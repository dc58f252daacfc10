"""The two tiers, and what keeps them of one mind."""
