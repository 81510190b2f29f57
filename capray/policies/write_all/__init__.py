"""Write to all by two-phase commit; `replica` holds the policy."""
