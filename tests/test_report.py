"""The page holds together: offline, small, every figure drawn, every number defined, every row there; also in headless Chromium, if there is one."""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM, Browser, driven

from capray import report
from capray.errors import show_us
from capray.record import Record
from capray.replay import replay_command, toml
from capray.reporting import table as report_table
from capray.reporting.definitions import CAPTIONS, DEFINITIONS, SUMMARY, definition_of
from capray.reporting.packing import unpacked
from capray.scenario import from_dict
from capray.sweep import Grid, Sweep, Variant, coordinates, manifest_of, points, scenario_of
from capray.trial import simulate

S = 1_000_000
SWEEP = Sweep(
    name="two <b>sides</b>",
    seeds=3,
    base={"disk": "memory"},
    grids=(Grid(nodes=(3, 5), durations=("0s", "2s", "20s"), base={"workload": {"rate": 2.0, "keys": 3}}),),
    variants=(
        Variant(label="cp", policy="write-all"),
        Variant(label="ap", policy="cassandra", settings={"replication_factor": "nodes", "read_consistency": "ONE"}),
        Variant(label="server", policy="rdbms", shape="leader-minority"),
    ),
)


def measured(label: str, us: int, seed: int) -> dict[str, Any]:
    """A measurement as METRICS.md names it, made up."""
    stale = 0.4 + seed / 100 if label == "ap" and us else 0.0
    served = 1.0 if label == "ap" or not us else 0.0
    whole = {
        "availability": 0.9,
        "availability_worst_node": 0.5 + served / 2,
        "stale_share": stale,
        "linearizable": "invalid" if stale else "valid",
        "lost_writes": 0,
        "conflicts": 3,
        "divergence_area": us / 2e6,
        "staleness_max_us": us // 2 if stale else None,
        "convergence_us": None if not us else 300_000 + seed,
        "never_measured": None,
    }
    if not us:
        return whole
    return {
        **whole,
        "availability_during": 0.6 + served * 0.4,
        "availability_during_minority": served,
        "availability_during_majority": 1.0,
        "availability_during_largest": 1.0,
        "availability_worst_node_during": served,
        "stale_share_during": stale,
    }


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    out = []
    for point in points(SWEEP):
        for seed in range(SWEEP.seeds):
            place = coordinates(SWEEP, point, scenario_of(SWEEP, point, seed), seed)
            out.append({**place, "record": f"{seed:032x}", **measured(place["label"], place["duration_us"], seed)})
    return out


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    return {**manifest_of(SWEEP, "local", "capray sweep two.toml --seeds 3"), "digest": "d1" * 16}


@pytest.fixture(scope="module")
def trials() -> list[tuple[str, Record]]:
    raw = {
        "nodes": 3,
        "faults": [{"shape": "majority", "at": "3s", "for": "3s"}],
        "duration": "8s",
        "workload": {"rate": 10.0},
        "trace_us": (2_900_000, 3_300_000),
    }
    return [(f"{policy}, 3 nodes", simulate(from_dict({**raw, "policy": policy}), 1)) for policy in ("write-all", "rdbms")]


@pytest.fixture(scope="module")
def page(rows: list[dict[str, Any]], manifest: dict[str, Any], trials: list[tuple[str, Record]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    report.write_report(rows[::-1], manifest, trials, path)
    return path


@pytest.fixture(scope="module")
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


# ---- the page as a file -----------------------------------------------------------------------------------------------------------------------
def test_the_page_says_what_was_run(text: str) -> None:
    for said in (
        "d1" * 16,
        "capray sweep two.toml --seeds 3",
        "engine local",
        "54 trials",
        "3 policies and variants",
        "no cut, 2s, 20s",
        "majority, leader-minority",
    ):
        assert said in text
    assert "two <b>sides" not in text and "two &lt;b&gt;sides" in text


def test_the_page_needs_nothing_from_anywhere(text: str) -> None:
    assert "default-src 'none'" in text  # the browser itself refuses to fetch
    assert not re.search(r"(src|href)=['\"]?(https?:)?//", text) and "@import" not in text and "fetch(" not in text


def test_every_trial_is_in_the_table_once_in_a_fixed_order(text: str, rows: list[dict[str, Any]]) -> None:
    table = unpacked(text)["rows"]
    labels = table["columns"]["label"]
    assert table["count"] == len(rows) == 54
    assert labels["words"] == ["cp", "ap", "server"]  # as the sweep names them, not as they were finished
    assert [labels["words"][i] for i in labels["at"]] == ["cp"] * 18 + ["ap"] * 18 + ["server"] * 18
    assert "never_measured" not in table["columns"] and "key" not in table["columns"]
    assert table["columns"]["availability_during_largest"] == {"same": "availability_during_majority"}


def test_every_column_of_figures_and_summary_is_defined_and_every_figure_links_to_its_rows(text: str) -> None:
    columns = [name for caption in CAPTIONS.values() for name in caption.columns] + [name for _, name, _ in SUMMARY]
    for name in columns:
        found = definition_of(name)
        assert found is not None and f"id='def-{found.measure}'" in text, name
    drawn = re.findall(r"data-figure='data-(\w+)'", text)
    assert drawn == ["signature", "availability", "inconsistency", "heatmap", "triangle"]
    for name in drawn:
        section = text[text.index(f"<section id={name}>") :]
        assert "data-rows=" in section[: section.index("</section>")]
    assert len({one.measure for one in DEFINITIONS}) == len(DEFINITIONS)


@pytest.mark.parametrize(
    ("column", "measure"),
    [
        ("availability_during_minority_write", "availability"),
        ("availability_worst_node_during", "availability_worst_node"),
        ("staleness_max_during_us", "staleness_max"),
        ("lost_writes_provable", "lost_writes_provable"),
        ("recovery_first_read_us", "recovery_first"),
        ("allowed_availability_read", "allowed_availability"),
        ("label", None),
    ],
)
def test_a_column_belongs_to_the_longest_measure_that_its_name_begins_with(column: str, measure: str | None) -> None:
    found = definition_of(column)
    assert (found.measure if found else None) == measure


def test_the_summary_is_over_cuts_longer_than_the_deadline_with_intervals(text: str) -> None:
    section = text[text.index("<section id=summary>") : text.index("</section>", text.index("<section id=summary>"))]
    line = next(one for one in section.split("<tr>") if one.startswith("<td class=w>ap</td><td class=n>5</td>"))
    cells = [re.sub("<[^>]+>", "|", cell) for cell in re.findall(r"<td class=n>(.*?)</td>", line)]
    assert cells[1] == "|6|"  # 2 s and 20 s under three seeds
    assert "0.410||[0.385, 0.435]|" in cells  # 0.40, 0.41, 0.42: s = 0.01, t(2) = 4.3027
    assert cells[-1] == "0.000||[0.000, 0.390]|"  # Wilson, 0 of 6


def test_a_summary_link_leads_to_its_rows(text: str) -> None:
    assert html_json('{"pick": {"label": "ap", "nodes": "5"}, "cut": "partitioned"}') in text


def html_json(plain: str) -> str:
    return plain.replace('"', "&quot;")


def test_the_theorem_is_held_against_the_rows(rows: list[dict[str, Any]], manifest: dict[str, Any], text: str, tmp_path: Path) -> None:
    assert "of 6 combinations of policy and size in 36 trials, none stands at (1, 1)" in text
    magic = [{**row, "linearizable": "valid", "stale_share_during": 0.0} if row["label"] == "ap" else row for row in rows]
    report.write_report(magic, manifest, [], tmp_path / "magic.html")
    assert "At (1, 1) while cut, every trial linearizable: ap (3 nodes), ap (5 nodes)" in (tmp_path / "magic.html").read_text()


def test_the_deadline_is_the_manifests(manifest: dict[str, Any]) -> None:
    assert report.deadline_of(manifest) == S
    assert report.deadline_of({"spec": {"base": {"workload": {"deadline_us": 5 * S}}}}) == 5 * S
    assert report.deadline_of({"spec": {"scenario": {"workload": {"deadline_us": 2 * S}}}}) == 2 * S
    assert report.deadline_of({}) == S


# ---- replay -------------------------------------------------------------------------------------------------------------------------------------
def test_the_replay_command_carries_the_very_scenario_of_the_trial(rows: list[dict[str, Any]], manifest: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(manifest))  # as it is read back from its file
    for row in rows[::4]:
        command = replay_command(plain, row)
        first, _, body = command.partition("\n")
        assert first == f"capray run /dev/stdin --seed {row['seed']} <<'EOF'"
        assert from_dict(tomllib.loads(body.removesuffix("EOF"))).digest() == row["scenario"]


def test_the_table_keeps_one_command_a_point_and_puts_the_seed_in(text: str) -> None:
    replay = unpacked(text)["rows"]["columns"]["replay"]
    assert len(replay["words"]) == 18  # three policies, two sizes, three lengths
    assert all(word.startswith("capray run /dev/stdin --seed {seed} <<") for word in replay["words"])


def test_a_run_is_replayed_by_its_own_command_and_a_row_may_say_its_own() -> None:
    assert replay_command({"kind": "run", "command": "capray run --policy abd"}, {"seed": 1}) == "capray run --policy abd"
    assert replay_command({"kind": "sweep", "spec": {}}, {"seed": 1, "replay": "make it so"}) == "make it so"
    assert "--policy abd --nodes 3 --seed 4" in replay_command({}, {"policy": "abd", "nodes": 3, "seed": 4})


def test_toml_is_what_tomllib_reads_back() -> None:
    raw = {
        "policy": 'a "b"\n',
        "nodes": 5,
        "rate": 0.5,
        "flag": True,
        "faults": [{"shape": "0,1|2", "at_us": 5, "nodes": [1, 2]}],
        "settings": {"x-y": 1, "z": "ONE"},
        "link": {"latency": {"type": "c"}},
    }
    assert tomllib.loads(toml({**raw, "nothing": None, "empty": {}})) == raw


# ---- size ---------------------------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def wide(rows: list[dict[str, Any]], manifest: dict[str, Any], trials: list[tuple[str, Record]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 1026 trials of 400 columns, with more single trials than fit."""
    many = [
        {**row, "seed": seed, **{f"latency_p99_{i}_us": (seed * 7919 + i * 104729) % 10**7 for i in range(380)}} for row in rows for seed in range(19)
    ]
    path = tmp_path_factory.mktemp("wide") / "wide.html"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(report, "TRIAL_BYTES", 60_000)
        patched.setattr(report_table, "TABLE_BYTES", 1_800_000)
        report.write_report(many, manifest, trials * 3, path)
    return path


def test_a_thousand_trials_of_four_hundred_columns_stay_under_ten_megabytes(wide: Path) -> None:
    page = wide.read_text()
    assert wide.stat().st_size < 10_000_000 - report_table.TABLE_BYTES  # room for what TRIAL_BYTES and TABLE_BYTES really are, were neither packed well
    assert re.search(r" \d+ columns that do not fit are in the directory's table.csv", page)
    data = unpacked(page)
    assert "Left out for size: " in page and sum(name.startswith("timeline-") for name in data) < 6
    kept = data["rows"]["columns"]
    assert {"label", "seed", "availability_during", "linearizable", "replay", "record"} <= set(kept)


def test_a_very_large_sweep_is_shown_by_points_and_drawn_from_what_is_kept_of_its_rows(
    rows: list[dict[str, Any]], manifest: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report.write_report(rows, manifest, [], tmp_path / "whole.html")
    monkeypatch.setattr(report, "MOST_ROWS", 20)
    by_key = sorted(rows, key=lambda row: row["key"])
    report.write_report(by_key, manifest, [], tmp_path / "points.html")
    whole, page = (unpacked((tmp_path / name).read_text()) for name in ("whole.html", "points.html"))
    table = page["rows"]
    assert table["count"] == 18 and set(table["columns"]["trials"]["values"]) == {3} and page["meta"]["unit"].endswith("54 in all)")
    assert table["columns"]["stale_share"]["values"][6 + 1] == pytest.approx(0.41)  # the third of "ap" on 3 nodes: the mean of .40, .41, .42
    assert table["columns"]["label"] == {"words": ["cp", "ap", "server"], "at": [0] * 6 + [1] * 6 + [2] * 6}
    assert len(table["columns"]["replay"]["words"]) == 18
    assert {name: data for name, data in page.items() if name.startswith("data-")} == {n: d for n, d in whole.items() if n.startswith("data-")}
    said = [re.search(r"<section id=summary>.*?</section>", (tmp_path / name).read_text(), re.DOTALL) for name in ("whole.html", "points.html")]
    assert said[0] and said[1] and said[0][0] == said[1][0]


def test_figures_of_real_rows_are_the_same_from_what_is_kept_of_them() -> None:
    from capray import plots
    from capray.figures.data import narrow, tidy
    from capray.reporting.theory import expectations
    from capray.store import Results

    results = Results(Path(__file__).parent.parent / "results" / "ci-partition-sweep")
    whole, there = results.rows(), results.manifest()
    kept = narrow(whole, report.DRAWN_FROM)
    assert len(json.dumps(kept)) < 0.25 * len(json.dumps(whole))
    figures, others = plots.figures(whole), plots.figures(kept)
    assert list(figures) == list(others) and len(figures) == 6
    assert all(figures[name].to_json() == others[name].to_json() for name in figures)
    assert expectations(tidy(whole), there, S) == expectations(tidy(kept), there, S)


def test_the_page_of_one_uncut_trial_says_that_nothing_was_tested(tmp_path: Path) -> None:
    row = {
        "key": "x",
        "label": "abd",
        "policy": "abd",
        "nodes": 3,
        "seed": 0,
        "shape": "none",
        "duration": show_us(0),
        "duration_us": 0,
        **measured("abd", 0, 0),
    }
    report.write_report([row], {"kind": "run", "name": "one", "command": "capray run --policy abd"}, [], tmp_path / "one.html")
    assert "the theorem was not put to the test" in (tmp_path / "one.html").read_text()


def test_two_results_are_overlaid_with_the_table_of_their_differences(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    from capray.differences import compare_rows

    later = [{**row, "availability_during": row["availability_during"] - 0.1} if row["duration_us"] and row["label"] == "cp" else row for row in rows]
    table = compare_rows(rows, later, ["availability_during", "stale_share"], 0.0)
    report.write_comparison(rows, later, "monday", "tuesday <i>", table, tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text()
    assert "4 told apart" in page and "<i>" not in page
    assert unpacked(page)["rows"]["columns"]["label"]["words"][:2] == ["ap [monday]", "ap [tuesday <i>]"]
    first = page[page.index("<section id=differences>") :].split("<tr>")[2]
    assert re.findall(r">([^<]+)</td>", first)[:7] == ["cp", "3", "20s", "availability_during", "0.6", "0.5", "-0.1"]


# ---- in a browser -------------------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium or Chrome on this machine")
    with driven() as found:
        yield found


def drawn_in(browser: Browser, page: Path) -> Browser:
    """The page, once what is in view is drawn."""
    browser.open(page.as_uri())
    browser.until("return document.documentElement.dataset.ready")
    return browser


@pytest.fixture
def opened(browser: Browser, page: Path) -> Browser:
    return drawn_in(browser, page)


def reached(browser: Browser, figure: str) -> str:
    """Scroll to a figure and wait until it is drawn.  Returns the expression for its box."""
    box = f"document.getElementById('{figure}')"
    browser.js(f"{box}.scrollIntoView({{block: 'center'}})")
    browser.until(f"return {box}.querySelector('.main-svg')")
    return box


def test_the_page_opens_without_a_script_error(opened: Browser) -> None:
    """Nor is anything refused by the page's own policy, which would stand in the console too."""
    assert opened.js("return [document.documentElement.dataset.errors, document.documentElement.dataset.drawn]") == ["0", "1"]
    assert opened.errors() == []


DRAWN = "return [...document.querySelectorAll('.plot')].filter(box => box.querySelector('.main-svg')).map(box => box.id)"


def test_what_is_not_near_the_view_is_made_when_it_comes_near_and_moves_nothing(opened: Browser) -> None:
    assert opened.js(DRAWN) == ["fig-signature"]
    assert opened.js("return document.querySelectorAll('#trials-table tr, #pickers select').length") == 0
    heights = "return [...document.querySelectorAll('.plot')].map(box => box.offsetHeight)"
    before = opened.js(heights)
    for name in ("availability", "inconsistency", "heatmap", "triangle"):
        reached(opened, f"fig-{name}")
    reached(opened, "timeline")
    assert opened.until("return document.querySelectorAll('#pickers select').length") == 4
    assert opened.js("return document.documentElement.dataset.drawn") == "5"
    after = opened.js(heights)
    assert after[:-1] == before[:-1] and min(before[:-1]) > 200  # the last: no evidence, and no room for it
    assert opened.errors() == []


def test_all_is_drawn_before_the_page_is_printed(opened: Browser) -> None:
    opened.cdp("Page.printToPDF")
    assert opened.js(DRAWN) == [*(f"fig-{name}" for name in ("signature", "availability", "inconsistency", "heatmap", "triangle")), "timeline", "spacetime"]
    assert opened.errors() == []


def test_a_link_into_the_page_lands_where_it_should(browser: Browser, page: Path) -> None:
    at_top = "return Math.abs(document.getElementById('{}').getBoundingClientRect().top) < 2 && document.querySelectorAll('#trials-table tr').length"
    browser.open("about:blank")  # else only the place in the page changes
    browser.open(page.as_uri() + "#def-stale_share")
    browser.until("return document.documentElement.dataset.ready")
    assert browser.js(at_top.format("def-stale_share"))
    browser.open("about:blank")
    drawn_in(browser, page)
    for anchor in ("definitions", "heatmap", "def-stale_share"):
        browser.js(f"document.querySelector(\"a[href='#{anchor}']\").click()")
        browser.until(at_top.format(anchor))
        time.sleep(0.2)  # what is near now is made
        assert browser.js(at_top.format(anchor)), anchor
    assert browser.errors() == []


def test_hover_legend_and_menu_work(opened: Browser) -> None:
    figure = reached(opened, "fig-availability")
    x, y = opened.middle(f"{figure}.querySelector('.scatterlayer .trace .points path')")
    opened.point(x, y)
    assert "trials" in opened.until(f"const t = {figure}.querySelector('.hoverlayer .hovertext'); return t && t.textContent")
    shown = f"return {figure}.data.filter(t => t.visible === 'legendonly').length"
    assert opened.js(shown) == 0
    opened.point(*opened.middle(f"{figure}.querySelector('.legendtoggle')"), click=True)
    opened.until(shown.replace(".length", ".length === 3"))  # the policy's line in each of the three facets
    opened.point(*opened.middle(f"{figure}.querySelector('.updatemenu-header')"), click=True)
    opened.until("return document.querySelectorAll('.updatemenu-dropdown-button').length")
    opened.point(*opened.middle("document.querySelector('.updatemenu-dropdown-button')"), click=True)
    opened.until(f"return {figure}.layout.title.text.includes('3 nodes')")
    assert opened.errors() == []


def test_a_click_on_a_point_shows_its_trials(opened: Browser) -> None:
    figure = reached(opened, "fig-availability")
    spot = opened.middle(f"{figure}.querySelectorAll('.scatterlayer .trace .points')[0].querySelectorAll('path')[2]")
    opened.point(*spot, click=True)
    said = opened.until("const t = document.getElementById('matching').textContent; return t.startsWith('3 of 54') && t")
    assert "page 1 of 1" in said
    assert (
        opened.js("return [...document.querySelectorAll('#trials-table tbody tr')].map(r => [...r.cells].slice(0, 3).map(c => c.textContent))")
        == [["cp", "5", "20s"]] * 3
    )
    opened.js("document.querySelectorAll('#trials-table tbody tr')[1].click()")
    assert opened.js("return document.getElementById('replay-command').textContent").startswith("capray run /dev/stdin --seed 1 <<'EOF'")
    assert opened.errors() == []


def test_the_table_sorts_filters_pages_and_follows_links(opened: Browser) -> None:
    matching = "return document.getElementById('matching').textContent"
    opened.js("document.getElementById('trials').scrollIntoView()")
    opened.until(matching)
    assert opened.js(matching) == "54 of 54 trials, page 1 of 3"
    opened.js("document.getElementById('after').click()")
    assert opened.js(matching).endswith("page 2 of 3")
    column = "return [...document.querySelectorAll('#trials-table tbody tr')].map(r => r.cells[8].textContent)"
    assert opened.js("return document.querySelectorAll('#trials-table th')[8].textContent") == "availability_worst_node_during"
    opened.js("document.getElementById('reset').click(); for (const _ of [1, 2]) document.querySelectorAll('#trials-table th')[8].click()")
    assert opened.js(column)[:12] == ["1"] * 12 and opened.js(column)[12] == "0"  # largest first, null last
    opened.js("const f = document.getElementById('find'); f.value = 'SERVER'; f.oninput()")
    assert opened.js(matching).startswith("18 of 54")
    opened.js("document.querySelector('#signature [data-rows]').click()")  # the figure shows 5 nodes: so do its rows
    assert opened.js(matching).startswith("27 of 54")
    assert "stale_share_during" in opened.js("return document.querySelector('#trials-table thead').textContent")
    opened.js("document.querySelector('#summary [data-rows]').click()")
    assert opened.js(matching).startswith("6 of 54")
    assert opened.errors() == []


def test_single_trials_are_drawn_when_chosen(opened: Browser) -> None:
    reached(opened, "timeline")
    strokes = "return ['timeline', 'spacetime'].map(id => document.querySelectorAll('#' + id + ' .scatterlayer .trace').length)"
    assert min(opened.until(strokes)) > 1
    opened.js("const p = document.getElementById('trial-pick'); p.value = '1'; p.onchange()")
    opened.until("return document.querySelector('#timeline .gtitle').textContent.includes('rdbms')")
    assert opened.errors() == []


def test_the_page_of_a_thousand_trials_costs_less_than_two_seconds_to_open(browser: Browser, wide: Path) -> None:
    browser.cdp("Performance.enable", timeDomain="threadTicks")  # processor time of the page: the machine's other work does not count
    drawn_in(browser, wide)
    spent = {metric["name"]: metric["value"] for metric in browser.cdp("Performance.getMetrics")["metrics"]}
    browser.cdp("Performance.disable")
    assert spent["TaskDuration"] < 2 and browser.js("return document.documentElement.dataset.drawn") == "1"
    browser.js("document.getElementById('trials').scrollIntoView()")
    assert "1026 of 1026" in browser.until("return document.getElementById('matching').textContent")
    assert browser.errors() == []


def test_a_trial_that_is_not_linearizable_says_why_with_the_smallest_window() -> None:
    from capray.reporting.evidence import evidence_of
    from capray.scenario import from_dict
    from capray.trial import simulate

    cut = {"nodes": 5, "faults": [{"shape": "majority", "at": "2s", "for": "5s"}]}
    stale = simulate(from_dict({**cut, "policy": "cassandra", "settings": {"replication_factor": 5}}), 1)
    found = evidence_of(stale, "a title")
    assert found is not None and len(found[0].data) >= 1 and "key k" in found[1] and "> " in found[1]
    assert evidence_of(simulate(from_dict({**cut, "policy": "abd"}), 1), "a title") is None
