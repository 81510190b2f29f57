"""ZooKeeper: Zab and its sessions, part by part; `replica` holds the policy."""
