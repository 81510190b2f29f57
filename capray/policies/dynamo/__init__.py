"""Dynamo, part by part; `replica` holds the policy."""
