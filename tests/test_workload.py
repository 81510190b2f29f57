"""What clients ask, and the one place that decides what became of it."""

from __future__ import annotations

import decimal
from collections import Counter
from itertools import pairwise

import pytest
import scipy

from capray.client import NEVER_US, Client
from capray.workload import Workload, zipf_thresholds

S = 1_000_000


def arrivals(client: Client, until: int) -> list[int]:
    at, out = client.first(), []
    while at < until:
        out.append(at)
        at += client.gap()
    return out


def test_poisson_arrivals_have_the_rate_and_exponential_gaps() -> None:
    times = arrivals(Client(Workload(rate=50), 1, 5, 3), 200 * S)
    gaps = [b - a for a, b in pairwise(times)]
    assert len(times) == pytest.approx(10_000, rel=0.03)
    assert scipy.stats.kstest(gaps, scipy.stats.expon(scale=20_000).cdf).pvalue > 0.001


def test_even_arrivals_are_evenly_spaced_and_the_nodes_take_turns() -> None:
    assert arrivals(Client(Workload(rate=10, arrivals="even"), 0, 2, 1), S // 3) == [50_000, 150_000, 250_000]
    assert Client(Workload(rate=10, arrivals="even"), 1, 2, 1).first() == 100_000


def test_a_rate_of_zero_asks_nothing() -> None:
    for kind in ("poisson", "even"):
        assert Client(Workload(rate=0, arrivals=kind), 0, 3, 1).first() == NEVER_US  # type: ignore[arg-type]


def test_reads_and_writes_come_in_the_share_asked_for_and_written_values_are_distinct_and_tell_their_writer() -> None:
    asked = {node: [Client(Workload(read_share=0.8), node, 3, 7).next_request() for _ in range(1)] for node in range(3)}
    assert all(len(requests) == 1 for requests in asked.values())
    values = []
    for node in range(3):
        client = Client(Workload(read_share=0.8), node, 3, 7)
        requests = [client.next_request() for _ in range(5000)]
        written = [value for f, _, value in requests if f == "write"]
        assert len(written) / 5000 == pytest.approx(0.2, abs=0.02)
        assert all((value - 1) % 3 == node for value in written) and written == sorted(written)
        values += written
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("share, kinds", [(0.0, {"write"}), (1.0, {"read"})])
def test_only_reads_or_only_writes(share: float, kinds: set[str]) -> None:
    client = Client(Workload(read_share=share), 0, 1, 1)
    assert {client.next_request()[0] for _ in range(1000)} == kinds


def test_uniform_and_zipfian_keys() -> None:
    uniform, zipfian = Client(Workload(keys=4), 0, 1, 2), Client(Workload(keys=4, key_distribution="zipfian", zipf_exponent=1.0), 0, 1, 2)
    counts = Counter(uniform.next_request()[1] for _ in range(8000))
    assert set(counts) == {"k0", "k1", "k2", "k3"} and all(1800 < count < 2200 for count in counts.values())
    counts = Counter(zipfian.next_request()[1] for _ in range(25_000))
    assert [round(counts[f"k{i}"] / 1000) for i in range(4)] == [12, 6, 4, 3]  # 1, 1/2, 1/3, 1/4 of 12 in 25


def test_zipf_weights_do_not_depend_on_the_callers_decimal_context() -> None:
    honest = zipf_thresholds(50, "0.99")
    with decimal.localcontext(decimal.Context(prec=3)):
        assert zipf_thresholds.__wrapped__(50, "0.99") == honest
    assert honest[-1] in (2**32, 2**32 - 1)


def test_requests_do_not_depend_on_duration_or_policy_but_on_seed_and_node() -> None:
    def first(seed: int, node: int) -> list[tuple[int, tuple[str, str, object]]]:
        client = Client(Workload(), node, 3, seed)
        return [(client.gap(), client.next_request()) for _ in range(20)]

    assert first(1, 0) == first(1, 0) and first(1, 0) != first(2, 0) and first(1, 0) != first(1, 1)


# ---- ok, fail or info -----------------------------------------------------------------------------------------------------------------
def test_a_request_takes_a_free_process_or_a_new_one() -> None:
    client = Client(Workload(), 1, 5, 1)
    first, second = client.begin(0, "read", "k0", None), client.begin(1, "read", "k0", None)
    assert (client.session(first), client.session(second)) == (1, 6)
    client.answer(2, first, "ok", 3, None)
    assert client.session(client.begin(3, "write", "k0", 9)) == 1


@pytest.mark.parametrize("f, outcome, kind, complete, result", [
    ("read", "ok", "ok", 5, 7), ("write", "ok", "ok", 5, 7), ("write", "fail", "fail", 5, None), ("write", "info", "info", None, None),
    ("read", "info", "fail", 5, None)])
def test_what_an_answer_means(f: str, outcome: str, kind: str, complete: int | None, result: object) -> None:
    client = Client(Workload(), 0, 1, 1)
    assert client.answer(5, client.begin(0, f, "k0", None), outcome, 7, "why")
    (operation,) = client.history
    assert (operation.type, operation.complete, operation.result, operation.error) == (kind, complete, result, "why")
    assert bool(client.free) == (kind != "info")


def test_expiry_takes_what_is_due_and_leaves_the_rest() -> None:
    client = Client(Workload(deadline_us=100), 0, 1, 1)
    early, late = client.begin(0, "write", "k0", 1), client.begin(50, "write", "k0", 2)
    client.expire(100)
    assert list(client.open) == [late] and client.oldest_deadline() == 150
    assert not client.answer(120, early, "ok", None, None) and client.late_answers == 1
    client.expire(150)
    assert [(o.type, o.error) for o in client.history] == [("info", "timeout")] * 2 and client.oldest_deadline() is None


def test_the_unfinished_are_shown_and_stay_open() -> None:
    client = Client(Workload(), 0, 1, 1)
    write, read = client.begin(0, "write", "k0", 1), client.begin(1, "read", "k0", None)
    assert [(o.f, o.type, o.complete) for o in client.unfinished(9)] == [("write", "info", None), ("read", "fail", 9)]
    assert list(client.open) == [write, read] and client.history == []


@pytest.mark.parametrize("workload, names", [
    (Workload(rate=-1), "workload.rate: -1"), (Workload(rate=1e9), "workload.rate"), (Workload(rate=float("nan")), "workload.rate: nan"),
    (Workload(read_share=1.5), "workload.read_share: 1.5"), (Workload(keys=0), "workload.keys: 0"), (Workload(zipf_exponent=0), "workload.zipf_exponent: 0"),
    (Workload(zipf_exponent=float("inf")), "workload.zipf_exponent: inf"), (Workload(deadline_us=0), "workload.deadline: 0")])
def test_what_a_workload_cannot_be_is_named(workload: Workload, names: str) -> None:
    (problem,) = workload.problems()
    assert problem.startswith(names) and "\n" not in problem
