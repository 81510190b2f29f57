"""Convergent replicated data types over gossip; `replica` holds the policy."""
