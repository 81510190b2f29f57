"""What real servers did under a real cut of 10 s: medians and spreads of the measured runs, which experiments/real_servers.py holds the policies against.

Decides: nothing; these are numbers.  May not know: how they are simulated.
Sources: RUNS: reference/real_servers/index.json, the measured runs of etcd, ZooKeeper, Redis with Sentinel, PostgreSQL and Cassandra.  AGAIN: runs of the
same version under the same workload and cut, made for capray (five network namespaces on one machine of two busy cores, Linux 6.18; the cut by one nftables
transaction), where three runs say little about the median: after heal etcd 3.4 elects in one to seven rounds, each a second or so, in which the returning
members' ever higher terms restart everybody's timers.  Runs whose healthy reads took over 20 ms, for want of processor, are not counted.
"""

from __future__ import annotations

from typing import NamedTuple


class Spread(NamedTuple):
    """Of the runs of one system and cut; of runs that agree, or of a single one, all three are the same."""

    median: float
    least: float
    most: float


# (system, variant, runs) -> measure, median over the runs, and their spread where they differ: s, shares, counts; p50 in ms
RUNS: dict[tuple[str, str, int], str] = {
    ("etcd", "leader_cut", 3): """
        av_before 1; av_dur_min_r 0; av_dur_min_w 0; av_dur_maj_r .9588 .9581 .9898; av_dur_maj_w .8834 .8511 .9058;
        av_after_min .944 .871 .9447; av_after_maj .952 .9034 .9773; failover_w 1.228 .955 1.358; failover_w_all 1.323 1.059 1.491;
        failover_r_all 1.226 .973 1.361; maj_gap_w 1.928 1.53 2.985; maj_gap_r 1.892 1.527 2.998; rec_first_ok_r 2.474 2.039 3.897;
        rec_first_ok_w 2.473 2.027 3.862; rec_last_bad 1.408 .984 2.805; stale 0; stale_dur_min 0; stale_dur_maj 0; stale_after 0; stale_max_s 0;
        lost_acked 0; info_applied 38 16 42; p50_r 4.84 3.74 4.88; p50_w 7.34 5.77 7.4
    """,
    ("etcd", "follower_cut", 3): """
        av_before 1; av_dur_min_r 0; av_dur_min_w 0; av_dur_maj_r 1; av_dur_maj_w 1; av_after_min .9442 .9318 .9508;
        av_after_maj .9329 .9191 .9929; failover_w .046 .016 .067; failover_w_all .362 .211 .51; failover_r_all .184 .07 .347;
        maj_gap_w 2.245 1.039 2.619; maj_gap_r 2.196 1.06 2.659; rec_first_ok_r 2.226 2.031 2.698; rec_first_ok_w 2.22 1.994 2.698;
        rec_last_bad 1.193 1.116 1.672; stale 0; stale_dur_min 0; stale_dur_maj 0; stale_after 0; stale_max_s 0; lost_acked 0;
        info_applied 30 3 32; p50_r 4.31 4.17 4.32; p50_w 6.63 6.28 6.64
    """,
    ("etcd_ser", "leader_cut", 2): """
        av_before 1; av_dur_min_r 1; av_dur_min_w 0; av_dur_maj_r 1; av_dur_maj_w .9026 .8904 .9149; av_after_min .9555 .9429 .9682;
        av_after_maj .9748 .9614 .9882; failover_w 1.473 .954 1.992; failover_w_all 1.538 1.075 2.001; failover_r_all .069 .066 .072;
        maj_gap_w 2.243 1.737 2.749; maj_gap_r .293 .206 .38; min_last_ok_r 9.974 9.972 9.976; rec_first_ok_r .172 .121 .223;
        rec_first_ok_w 3.0595 2.705 3.414; rec_last_bad 2.016 1.667 2.365; stale 228.5 227 230; stale_dur_min 169 162 176; stale_dur_maj 0;
        stale_after 59.5 54 65; stale_max_s 11.5645 11.388 11.741; lost_acked 0; info_applied 28 20 36; p50_r 1.7 1.69 1.71;
        p50_w 4.18 4.17 4.19
    """,
    ("zookeeper", "leader_cut", 3): """
        av_before 1; av_dur_min_r 1; av_dur_min_w 0 0 .1094; av_dur_maj_r .9963 .9935 .9967; av_dur_maj_w 0; av_after_min .989 .9697 1;
        av_after_maj .966 .9604 .9889; failover_w 10.698 10.237 10.842; failover_w_all 10.953 10.405 10.977; failover_r_all .109 .065 .126;
        maj_gap_w 10.698 10.237 10.842; maj_gap_r .679 .376 .683; min_last_ok_r 9.976 9.893 9.977; rec_first_ok_r .716 .605 .901;
        rec_first_ok_w .913 .377 .959; rec_last_bad .726 .312 .74; stale 0 0 1; stale_dur_min 0; stale_dur_maj 0; stale_after 0;
        stale_max_s 0 0 .017; lost_acked 0; info_applied 0 0 171; p50_r 2.17 2.02 2.23; p50_w 6.26 6.08 6.47
    """,
    ("zookeeper", "follower_cut", 3): """
        av_before 1; av_dur_min_r 1 .994 1; av_dur_min_w 0; av_dur_maj_r 1; av_dur_maj_w 1; av_after_min .989 .9868 .9893; av_after_maj 1;
        failover_w .023 .008 .025; failover_w_all .088 .086 .34; failover_r_all .109 .064 .126; maj_gap_w .229 .225 .235;
        maj_gap_r .343 .219 .379; min_last_ok_r 9.972 9.892 9.974; rec_first_ok_r .504 .308 .524; rec_first_ok_w .507 .34 .565;
        rec_last_bad .26 .234 .411; stale 191 163 193; stale_dur_min 190 163 193; stale_dur_maj 0; stale_after 0; stale_max_s 9.901 9.845 9.908;
        lost_acked 0; info_applied 0; p50_r 2.23 2.05 2.41; p50_w 6.72 6 7.01
    """,
    ("redis", "leader_cut", 3): """
        av_before 1; av_dur_min_r 1; av_dur_min_w 1; av_dur_maj_r .3135 .3106 .3762; av_dur_maj_w .3464 .3063 .3931; av_after_min 1;
        av_after_maj 1; failover_w 6.694 6.581 6.754; failover_w_all 6.781 6.744 6.869; failover_r_all 6.897 6.885 6.897;
        maj_gap_w 6.694 6.581 6.754; maj_gap_r 6.694 6.573 6.848; min_last_ok_r 9.97 9.892 10.014; min_last_ok_w 9.937 9.933 9.952;
        rec_first_ok_r .225 .102 .283; rec_first_ok_w .174 .171 .288; rec_last_bad 0; stale 72 65 89; stale_dur_min 35 29 40;
        stale_dur_maj 34 29 42; stale_after 7 3 7; stale_max_s 6.778 6.355 6.975; lost_acked 194 192 204; info_applied 0; p50_r .7 .67 .74;
        p50_w .9 .89 .99
    """,
    ("redis", "follower_cut", 2): """
        av_before 1; av_dur_min_r 0; av_dur_min_w 0; av_dur_maj_r 1; av_dur_maj_w 1; av_after_min 1; av_after_maj 1; failover_w .034 .001 .067;
        failover_w_all .4235 .339 .508; failover_r_all .2075 .072 .343; maj_gap_w .221 .209 .233; maj_gap_r .2015 .198 .205;
        rec_first_ok_r .1745 .119 .23; rec_first_ok_w .2495 .193 .306; rec_last_bad 0; stale 0; stale_dur_min 0; stale_dur_maj 0; stale_after 0;
        stale_max_s 0; lost_acked 0; info_applied 1.5 1 2; p50_r .725 .62 .83; p50_w .95 .84 1.06
    """,
    ("postgres", "leader_cut", 1): """
        av_before 1; av_dur_min_r 1; av_dur_min_w 1; av_dur_maj_r 0; av_dur_maj_w 0; av_after_min 1; av_after_maj 1; failover_w 10.037;
        failover_w_all 10.219; failover_r_all 10.106; maj_gap_w 10.037; maj_gap_r 10.027; min_last_ok_r 9.996; min_last_ok_w 9.938;
        rec_first_ok_r .12; rec_first_ok_w .307; rec_last_bad 0; stale 0; stale_dur_min 0; stale_dur_maj 0; stale_after 0; stale_max_s 0;
        lost_acked 0; info_applied 1; p50_r .58; p50_w 1.32
    """,
    ("cassandra_rf3_one", "minority2", 3): """
        av_before 1; av_dur_min_r .6289 .6209 .6954; av_dur_min_w .7947 .7884 .83; av_dur_maj_r .8712 .7659 .9129; av_dur_maj_w 1;
        av_after_min .9688 .9641 .9749; av_after_maj .9959 .9899 .9975; failover_w .026 .007 .054; failover_w_all .096 .084 .327;
        failover_r_all .107 .103 .128; maj_gap_w .24 .227 .308; maj_gap_r .343 .217 .343; min_last_ok_r 9.941 9.693 10.002;
        min_last_ok_w 9.981 9.929 10.022; rec_first_ok_r .407 .125 .735; rec_first_ok_w .284 .167 .527; rec_last_bad 2.411 2.358 3.014;
        stale 181 156 204; stale_dur_min 70 57 75; stale_dur_maj 59 47 72; stale_after 56 40 64; stale_max_s 1.498 1.02 1.857; lost_acked 0;
        info_applied 0; p50_r 4.33 4.07 4.59; p50_w 4.07 4.06 4.33
    """,
    ("cassandra_rf3_quorum", "minority2", 3): """
        av_before 1; av_dur_min_r .3094 .2526 .3249; av_dur_min_w .3947 .381 .42; av_dur_maj_r .5516 .4524 .5797; av_dur_maj_w .6021 .5682 .6103;
        av_after_min .9173 .907 .9198; av_after_maj .9487 .9439 .9578; failover_w .064 .007 .079; failover_w_all .184 .085 .338;
        failover_r_all .245 .11 .955; maj_gap_w .299 .288 .408; maj_gap_r .412 .329 .588; min_last_ok_r 9.838 9.694 9.908;
        min_last_ok_w 9.937 9.782 9.958; rec_first_ok_r .623 .164 .749; rec_first_ok_w .859 .264 1.078; rec_last_bad 2.667 2.559 2.849; stale 0;
        stale_dur_min 0; stale_dur_maj 0; stale_after 0; stale_max_s 0; lost_acked 0; info_applied 83 80 88; p50_r 5.24 4.55 6.03;
        p50_w 4.57 3.94 5.51
    """,
    ("cassandra_rf3_wall_rone", "minority2", 1): """
        av_before 1; av_dur_min_r .6447; av_dur_min_w 0; av_dur_maj_r .9353; av_dur_maj_w .2076; av_after_min .9008; av_after_maj .9562;
        failover_w .069; failover_w_all .479; failover_r_all .114; maj_gap_w .755; maj_gap_r .342; min_last_ok_r 10.014; rec_first_ok_r .241;
        rec_first_ok_w 3.438; rec_last_bad 2.866; stale 0; stale_dur_min 0; stale_dur_maj 0; stale_after 0; stale_max_s 0; lost_acked 0;
        info_applied 277; p50_r 4.46; p50_w 5.6
    """,
    ("cassandra_rf3_wany_rone", "minority2", 2): """
        av_before 1; av_dur_min_r .5951 .4897 .7005; av_dur_min_w .8119 .7947 .8291; av_dur_maj_r .8006 .7755 .8258; av_dur_maj_w 1;
        av_after_min .9708 .968 .9737; av_after_maj .9947 .9934 .9959; failover_w .0315 .006 .057; failover_w_all .2215 .084 .359;
        failover_r_all .4625 .104 .821; maj_gap_w .234 .228 .24; maj_gap_r .2835 .229 .338; min_last_ok_r 9.9735 9.942 10.005;
        min_last_ok_w 9.942 9.928 9.956; rec_first_ok_r .268 .091 .445; rec_first_ok_w .238 .199 .277; rec_last_bad 2.4265 2.257 2.596;
        stale 181 161 201; stale_dur_min 64 53 75; stale_dur_maj 53.5 43 64; stale_after 63.5 62 65; stale_max_s 1.6805 1.498 1.863;
        lost_acked 0; info_applied 0; p50_r 4.275 3.73 4.82; p50_w 3.9 3.6 4.2
    """,
    ("cassandra_rf5_one", "minority2", 3): """
        av_before 1; av_dur_min_r 1; av_dur_min_w 1; av_dur_maj_r 1; av_dur_maj_w 1; av_after_min 1; av_after_maj 1; failover_w .026 .005 .069;
        failover_w_all .098 .081 .338; failover_r_all .113 .107 .128; maj_gap_w .24 .228 .307; maj_gap_r .26 .215 .34;
        min_last_ok_r 10.017 9.974 10.025; min_last_ok_w 9.954 9.941 10.018; rec_first_ok_r .224 .097 .272; rec_first_ok_w .286 .163 .556;
        rec_last_bad 0; stale 275 263 290; stale_dur_min 106 98 113; stale_dur_maj 95 77 115; stale_after 70 69 85;
        stale_max_s 1.499 1.019 1.863; lost_acked 0; info_applied 0; p50_r 3.48 3.25 4.71; p50_w 4.27 3.67 4.95
    """,
    ("cassandra_rf5_quorum", "minority2", 3): """
        av_before 1; av_dur_min_r 0; av_dur_min_w 0; av_dur_maj_r .6271 .4968 .7897; av_dur_maj_w 1; av_after_min .8632 .8571 .8802;
        av_after_maj 1 .9843 1; failover_w .033 .028 .049; failover_w_all .102 .09 .321; failover_r_all 5.847 .156 5.931;
        maj_gap_w .237 .228 .31; maj_gap_r .304 .287 5.449; rec_first_ok_r 3.546 3.397 3.811; rec_first_ok_w 3.395 3.319 3.417;
        rec_last_bad 2.625 2.382 2.827; stale 0; stale_dur_min 0; stale_dur_maj 0; stale_after 0; stale_max_s 0; lost_acked 0;
        info_applied 96 93 98; p50_r 8.64 6.86 10.83; p50_w 7.58 6.36 8.75
    """,
}

# the same; where only 10 s after heal were recorded, in which all failures fell, av_after_* is as of 20 s
AGAIN: dict[tuple[str, str, int], str] = {
    ("etcd", "follower_cut", 20): """
        av_after_min .889 .6705 .9935; av_after_maj .939 .713 .998; maj_gap_w 2.2195 1.103 6.582; maj_gap_r 2.234 1.074 6.56;
        rec_first_ok_r 3.1455 1.151 7.666; rec_first_ok_w 3.1455 1.154 7.703; rec_last_bad 2.1135 .257 6.648
    """,
    # Reads at ONE of RF 3, which no level of writes changes: the recorded runs of the three levels together, out of their medians and spreads.  The oldest
    # stale read: six runs of 5.0.4 (ONE and ANY), each over requests of its own, where the recorded ones share three: .73 .85 .95 1.29 1.43 1.47.  (Those
    # runs' shares of reads, .39 to .66 and .73 to .94, are of servers that had run for an hour, and so are not told here: see Cassandra's stage_latency.)
    ("cassandra_rf3_one", "minority2", 6): "av_dur_min_r .6368 .4897 .7005; av_dur_maj_r .8485 .7659 .9353; stale_max_s 1.12 .73 1.47",
    ("cassandra_rf3_wall_rone", "minority2", 6): "av_dur_min_r .6368 .4897 .7005; av_dur_maj_r .8485 .7659 .9353",
    ("cassandra_rf3_wany_rone", "minority2", 6): "av_dur_min_r .6368 .4897 .7005; av_dur_maj_r .8485 .7659 .9353; stale_max_s 1.12 .73 1.47",
}


def measured_servers() -> dict[tuple[str, str], dict[str, Spread]]:
    """(system, variant) -> measure -> what was measured; in seconds, shares, counts, and p50 in ms."""
    return {(system, variant): _measures(text) for (system, variant, _), text in RUNS.items()}


def measured_again(system: str, variant: str, measure: str) -> tuple[int, Spread] | None:
    """How often it was measured again, and what came out; None where it was not."""
    for (one, cut, runs), text in AGAIN.items():
        if (one, cut) == (system, variant) and measure in _measures(text):
            return runs, _measures(text)[measure]
    return None


def _measures(text: str) -> dict[str, Spread]:
    return dict(_measure(part.split()) for part in text.split(";"))


def _measure(words: list[str]) -> tuple[str, Spread]:
    numbers = [float(word) for word in words[1:]]
    return words[0], Spread(*numbers) if len(numbers) == 3 else Spread(numbers[0], numbers[0], numbers[0])
