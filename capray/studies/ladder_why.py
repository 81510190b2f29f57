"""Why each line of the ladder looks as it does: what a reader who knows the system expects to see, and where it drops.

Decides: a few sentences a line, shown with it on the page.  May not know: what was measured (the table beside them says that).
Sources: those of the claims (ladder_claims.py).
"""

from __future__ import annotations

WHY = {
    "one server": "Node 0 answers everything, one operation at a time. What cuts others off from it, or stops it, costs answers and never consistency.",
    "zookeeper": (
        "A write has its place in one order (zxid) before it is acknowledged; a read is the own server's and may lag behind that order. So every fault leaves "
        "sequential consistency, and none leaves more: a server that is cut off serves what it last heard until it has been without its leader for syncLimit "
        "x tickTime."
    ),
    "zookeeper sync": (
        "The leader answers a sync from its own queue, without asking a quorum. That is enough while there is one leader; a leader that stood still while "
        "another was elected answers once more before it notices, so the pauses drop to sequential. Under a plain cut the sync of the deposed side gets no "
        "answer: the leader is silent to its followers, or its own clients are held back until it steps down."
    ),
    "etcd": (
        "Reads confirm the leader with a quorum (ReadIndex), writes commit by one: nothing but availability is lost under any fault of the table. That is the "
        "protocol: the releases before 3.4.42, 3.5.28 and 3.6.9 had two races around pauses and changes of the leader in which a linearizable read was stale "
        "(etcd-io/etcd issue 20418 and pull 21375), which are not modelled."
    ),
    "etcd serializable": "Reads are the own member's applied log: one order for all, seen late, also by a member that is cut off for as long as it is.",
    "etcd lease reads": (
        "The leader trusts that nobody else leads while its lease runs. With check-quorum a leader that was cut off steps down only after up to two election "
        "timeouts, a new one is elected after one: wherever the leader is on the wrong side of a cut, or slept or ran slow behind one, both answer for a "
        "while and it drops to sequential. Crashes and cuts of followers leave it linearizable."
    ),
    "cassandra ONE": (
        "Two or three of five nodes hold a key. Whoever asks is answered by the replica that its coordinator takes for nearest, as a rule the same one each "
        "time, and replicas keep the highest timestamp: so one often sees the order of the timestamps, late, which is sequential, though nobody promises it. "
        "It drops as soon as a coordinator has to turn to another replica (cuts, crashes: reads go backwards until the hints have come), and with clocks "
        "apart: an acknowledged write with an older timestamp is overwritten by the past, so that its own client does not read it."
    ),
    "cassandra ANY": "As ONE: a hint alone acknowledges a write only where no replica of the key answers, which few of these faults bring about.",
    "cassandra QUORUM": (
        "R + W > RF and blocking read repair: linearizable key by key as long as timestamps follow real time. Clocks 2 s apart reorder acknowledged writes, "
        "with reads that miss them, at full availability. When all replicas of a key lose power at once, what the commit log had not synced (up to 10 s) goes "
        "with them."
    ),
    "cassandra QUORUM, no read repair": (
        "Without read repair a write that reached only one replica (its coordinator was cut off) is read by one quorum and not by the next: reads go "
        "backwards, first under cuts in which quorums change. What was acknowledged is still seen: no read is stale (REG)."
    ),
    "cassandra SERIAL": (
        "Each operation is a round of Paxos by ballot, not by the clients' timestamps: skewed clocks do not hurt it. Unsynced Paxos state lost on all "
        "replicas does. A round is up to eight messages one after another: where they are slow or lost against the time between two operations on a key, "
        "proposers outbid each other and hardly anything is answered."
    ),
    "dynamo, merging": (
        "A client that merges writes the descendant of all siblings it read: nothing seen is lost, and replicas hold causal histories. Siblings are no "
        "register's answer, and writes that merely overlap leave them too: causal consistency at most, healthy or not, and less where a sloppy quorum answers "
        "from nodes that lack what the last one had."
    ),
    "dynamo, last write wins": (
        "As before, but the client keeps the sibling with the largest timestamp: of concurrent writes, all acknowledged, one is left, and the others were for "
        "nothing. With one value a read it can look linearizable as long as nothing is cut."
    ),
    "redis": (
        "One primary executes all commands and acknowledges before its replicas have them. Whenever the Sentinels elect another (leader cut, paused or "
        "crashed for longer than down-after) what was not yet replicated is lost, and under a cut all that the old primary goes on acknowledging. A cut of "
        "two followers may end so, too: their Sentinels are quorum (2) enough to call the primary down, and on heal may find the votes of the others before "
        "they hear from it; a vote does not ask whether it is down. While the primary stays it is linearizable. An order that may ignore real time can put "
        "the lost branch before the other, so that sequential often survives the loss: hence the loss is counted apart (!). Under 'drift + leader alone' "
        "some trials end before the deposed primary has dropped its branch, which is then not counted as lost: a Sentinel converts it at the second INFO "
        "after heal, 10 s on (sentinel.c: the role stable for 8 s, INFO every 10 s), and its new primary begins the full resynchronisation 4 to 6 s later by"
        " its own clock (repl-diskless-sync-delay 5, in whole seconds), which is up to 8.6 s where that runs at 0.7: real servers so timed would be as late."
    ),
    "redis, min-replicas 2": (
        "A primary that hears of fewer than two replicas within max-lag refuses writes: the split brain loses some seconds of them instead of all, but not "
        "none."
    ),
    "redis, appendfsync always": "Losing power costs nothing any more; a failover does, as replication is asynchronous all the same.",
    "postgres": "One server: as `one server`, with a write-ahead log.",
    "postgres, asynchronous standby": "Promotion without fencing: behind a cut two primaries acknowledge, and what the standby had not received is lost.",
    "postgres, synchronous standby": (
        "What is acknowledged is on the standby, so a failover loses nothing; but an old primary that was not fenced goes on answering reads, also of commits "
        "whose wait a client gave up, which only it has. No order in real time explains both sides; one that ignores it does (SEQ). A read of such a commit is "
        "not called stale, its outcome being unknown (REG); one of what stood there before the promotion is."
    ),
    "postgres, reads at the standby": (
        "The standby replays the log in order, later: a client that reads there may not find its own writes yet (most of all while the primary is down) and "
        "never reads backwards; clients of the primary see the present."
    ),
    "crdt, last-write-wins register": (
        "Every node answers from what it holds and gossips. Concurrent writes: the larger stamp stays, the other was acknowledged for nothing. In the end all "
        "agree."
    ),
    "crdt, multi-value register": "As before, with concurrent writes kept as siblings: their order is causal, nothing acknowledged is dropped unseen.",
    "crdt, grow-only counter": (
        "Increments commute: no order is needed, so causal memory holds under every fault at full availability, and every acknowledged increment is in every "
        "total in the end. What is missing is recency: nine reads of ten lack an increment that some other node had acknowledged."
    ),
    "crdt, PN counter": (
        "Two grow-only counters, one of them taken away: amounts of both signs commute, too. A total may now fall because an amount below 0 came, so a falling "
        "total alone breaks nothing: what each read had seen is the replicas' own word, verified against every total."
    ),
    "crdt, observed-remove set": (
        "As the counters. A remove takes the adds away that its replica had seen, and a concurrent add wins; each element is added once here, so that what is "
        "gone stays gone. Which of several removes a read had seen its answer does not say: a level holds if some way to have seen them keeps it."
    ),
    "abd": "Reads write back what they found to a majority: linearizable under every fault that leaves one.",
    "abd, no write-back": (
        "Every read still meets every completed write in some node of its majority, so none is stale (REG); but a write under way, or one whose writer was cut off "
        "or crashed, may be read by one majority and not by the next: reads go backwards."
    ),
    "write-all": "Reads one copy, writes all: one copy that cannot be written stops all writes, and nothing else is lost.",
}
