"""PostgreSQL with a standby; `replica` holds the policy."""
