"""Redis with Sentinel, part by part; `replica` holds the policy."""
