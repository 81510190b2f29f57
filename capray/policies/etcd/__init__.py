"""etcd: Raft and its key-value store, part by part; `replica` holds the policy."""
