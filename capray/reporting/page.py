"""The report page's style and script: plain CSS and JavaScript, nothing fetched.

Decides: how the page behaves: a figure, the single trials and the trials' table are made when they come near the view (all of them before the page
is printed), the table sorts, filters and pages through compact JSON, a click on a point shows its trials.  May not know: what is in the sections.
A figure's box has its height beforehand, and a link into the page makes the table first, whose height nobody knows: a link lands where it should.
plotly.js and all data stand in the page packed (capray.reporting.packing): a third of the size, and less for the browser to read than it takes to unpack.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from plotly.offline import get_plotlyjs

from capray.reporting.packing import EMBEDDED, packed
from capray.store import replace_file

CSS = r"""
:root { --ink: #222; --faint: #6b6b6b; --line: #ddd; --accent: #0072B2; --soft: #f6f7f8; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1280px; padding: 24px 28px 80px; color: var(--ink); background: #fff;
  font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 20px; margin: 44px 0 8px; padding-top: 8px; border-top: 1px solid var(--line); }
a { color: var(--accent); } p { max-width: 82ch; margin: 6px 0 10px; } .faint { color: var(--faint); }
nav { margin: 12px 0; display: flex; flex-wrap: wrap; gap: 4px 18px; }
dl.run { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 8px 0; } dl.run dt { color: var(--faint); }
dl.run dd { margin: 0; overflow-wrap: anywhere; }
dl.run dd.command, dl.run dd.digest { font: 13px ui-monospace, 'DejaVu Sans Mono', monospace; }
code, pre { font-family: ui-monospace, 'DejaVu Sans Mono', monospace; font-size: 13px; } pre { background: var(--soft); padding: 10px 12px;
  overflow: auto; border: 1px solid var(--line); max-height: 420px; }
.plot { width: 100%; min-width: 860px; } .caption { font-size: 14px; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; } table.summary { font-size: 12px; }
table.summary th, table.summary td { padding: 3px 5px; } table.summary .ci { font-size: 10.5px; }
dl.theory dt { font-weight: 600; margin-top: 12px; } dl.theory dd { margin: 2px 0 0 18px; max-width: 110ch; } dl.theory .note { color: #00507d; }
th, td { padding: 4px 9px; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { background: var(--soft); font-weight: 600; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td .ci { color: var(--faint); font-size: 12px; }
th, th.n { max-width: 9em; white-space: normal; } td.null { color: #aaa; text-align: right; } td:first-child, td.w { white-space: nowrap; }
#trials-table th { cursor: pointer; } #trials-table th[aria-sort]::after { content: ' \25B2'; font-size: 10px; }
#trials-table th[aria-sort=descending]::after { content: ' \25BC'; }
#trials-table tbody tr { cursor: pointer; } #trials-table tbody tr:hover, #trials-table tr.on { background: #eaf3f9; }
.controls { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: center; margin: 10px 0; font-size: 14px; }
select, input, button { font: inherit; padding: 3px 6px; }
.check { border-left: 4px solid #009E73; background: var(--soft); padding: 8px 12px; margin: 12px 0; } .check.bad { border-color: #D55E00; }
#trial-detail dl { columns: 3 260px; font-size: 12.5px; } #trial-detail dl div { break-inside: avoid; display: flex;
  justify-content: space-between; gap: 12px; border-bottom: 1px dotted var(--line); } #trial-detail dd { margin: 0;
  font-variant-numeric: tabular-nums; }
td:target, tr:target td { background: #fff6d6; } noscript, #old-browser { color: #D55E00; }
@media (max-width: 640px) { body { padding: 14px 12px 60px; font-size: 14px; } dl.run { grid-template-columns: 1fr; } dl.run dd { margin-bottom: 6px; }
  .controls label, .controls select, input, #pickers { max-width: 88vw; } #pickers { display: flex; flex-wrap: wrap; gap: 4px; } }
@media print { .controls, nav, #trials, .modebar { display: none; } h2 { break-after: avoid; } .plot, tr, dd { break-inside: avoid; }
  .scroll { overflow: visible; } body { max-width: none; } }
"""

JS = r"""
'use strict';
(async function () {
  const root = document.documentElement, $ = id => document.getElementById(id);
  let errors = 0, drawn = 0;
  window.addEventListener('error', () => { root.dataset.errors = ++errors; });
  window.addEventListener('unhandledrejection', () => { root.dataset.errors = ++errors; });
  root.dataset.errors = 0; root.dataset.drawn = 0;
  if (!window.DecompressionStream) { $('old-browser').hidden = false; return; }

  // ---- the page has not loaded before what is in view is drawn: who takes a picture of it, or prints it, when it has loaded wants the figures
  const held = document.createElement('iframe');
  held.hidden = true; document.body.append(held); held.contentDocument.open();
  const ready = () => {
    if (!root.dataset.ready) { root.dataset.ready = Math.round(performance.now()); held.contentDocument.close(); setTimeout(() => held.remove(), 0); }
  };

  // ---- what stands in the page packed: plotly.js, and a line for each piece of data: its name, a tab, its JSON
  async function unpack(id) {
    const text = atob($(id).textContent), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'))).text();
  }
  const [library, lines] = await Promise.all([unpack('packed-plotly'), unpack('packed-data')]);
  const texts = new Map(lines.split('\n').map(line => [line.slice(0, line.indexOf('\t')), line.slice(line.indexOf('\t') + 1)]));
  const read = name => JSON.parse(texts.get(name));
  const script = document.createElement('script');
  script.textContent = library; document.head.append(script); script.remove();
  const config = {responsive: true, displaylogo: false, modeBarButtons: [['toImage', 'zoom2d', 'pan2d', 'resetScale2d']]};
  const el = (tag, props, ...kids) => { const e = Object.assign(document.createElement(tag), props || {}); e.append(...kids); return e; };

  // ---- what is made when it comes near the view, one thing after another, so that the page can be read meanwhile
  const waiting = new Map(), line = [];
  let busy = false;
  const near = new IntersectionObserver(seen => {
    line.push(...seen.filter(one => one.isIntersecting).map(one => one.target));
    if (!busy) next();
  }, {rootMargin: '500px 0px'});
  function when(box, make) { if (box) { waiting.set(box, make); near.observe(box); } }
  function now(box) {
    const make = waiting.get(box);
    waiting.delete(box); near.unobserve(box);
    return make && make();
  }
  function next() {
    busy = line.length > 0;
    if (busy) Promise.resolve(now(line.shift())).then(() => setTimeout(next, 0));
    else ready();
  }
  window.addEventListener('beforeprint', () => { for (const box of [...waiting.keys()]) now(box); });

  function draw(box) {
    const figure = read(box.dataset.figure);
    return Plotly.newPlot(box, figure.data, figure.layout, config).then(() => {
      box.on('plotly_click', event => clicked(event.points[0].customdata));
      root.dataset.drawn = ++drawn;
    });
  }

  // ---- single trials, drawn when chosen
  const pick = $('trial-pick');
  function showTrial() {
    const at = +pick.value;
    for (const kind of ['timeline', 'spacetime', 'evidence']) {
      const box = $(kind), name = kind + '-' + at;
      box.hidden = !texts.has(name);
      if (box.hidden) continue;
      const figure = read(name);
      box.style.height = figure.layout.height + 'px';
      Plotly.react(box, figure.data, figure.layout, config);
    }
  }

  // ---- the table of trials
  let meta, count, columns;  // once it is made
  function at(name, i) {
    const c = columns[name];
    if (!c) return null;
    if (c.same) return at(c.same, i);
    return c.words ? (c.at[i] < 0 ? null : c.words[c.at[i]]) : c.values[i];
  }
  const state = {pick: {}, cut: '', text: '', sort: '', up: true, page: 0, on: -1, shown: []};
  const size = 25;
  const format = (name, v) => {
    if (v === null || v === undefined) return 'null';
    if (typeof v === 'boolean' || typeof v === 'string') return String(v);
    if (/_us$/.test(name)) {
      const [scale, unit] = Math.abs(v) >= 1e6 ? [1e6, ' s'] : Math.abs(v) >= 1e3 ? [1e3, ' ms'] : [1, ' us'];
      return +(v / scale).toPrecision(4) + unit;
    }
    return Number.isInteger(v) ? String(v) : String(+v.toPrecision(4));
  };
  function matches(i) {
    for (const name in state.pick) if (state.pick[name] !== '' && String(at(name, i)) !== state.pick[name]) return false;
    const us = at('duration_us', i) || 0;
    if (state.cut === 'healthy' && us > 0) return false;
    if (state.cut === 'partitioned' && us <= meta.deadline_us) return false;
    return !state.text || meta.coordinates.some(name => String(at(name, i)).toLowerCase().includes(state.text));
  }
  function order(list) {
    if (!state.sort) return list;
    const name = state.sort, sign = state.up ? 1 : -1;
    return list.sort((i, j) => {
      const a = at(name, i), b = at(name, j);
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (a < b ? -1 : a > b ? 1 : 0) || i - j;
    });
  }
  function render() {
    const list = [];
    for (let i = 0; i < count; i++) if (matches(i)) list.push(i);
    order(list);
    const pages = Math.max(1, Math.ceil(list.length / size));
    state.page = Math.min(state.page, pages - 1);
    const head = el('tr');
    for (const name of state.shown) {
      const th = el('th', {title: meta.titles[name] || ''});
      th.onclick = () => { state.up = state.sort === name ? !state.up : true; state.sort = name; render(); };
      name.split('_').forEach((part, k) => th.append(...(k ? ['_', el('wbr')] : []), part));
      if (state.sort === name) th.setAttribute('aria-sort', state.up ? 'ascending' : 'descending');
      head.append(th);
    }
    const body = el('tbody');
    for (const i of list.slice(state.page * size, (state.page + 1) * size)) {
      const tr = el('tr', {className: i === state.on ? 'on' : '', onclick: () => { state.on = i; detail(i); render(); }});
      for (const name of state.shown) {
        const v = at(name, i);
        tr.append(el('td', {textContent: format(name, v), className: v === null ? 'null' : typeof v === 'number' ? 'n' : 'w'}));
      }
      body.append(tr);
    }
    $('trials-table').replaceChildren(el('thead', {}, head), body);
    $('matching').textContent = list.length + ' of ' + count + ' ' + meta.unit + ', page ' + (state.page + 1) + ' of ' + pages;
    for (const name in pickers) pickers[name].value = state.pick[name] || '';
    $('cut').value = state.cut;
  }
  function detail(i) {
    const box = $('trial-detail'), list = el('dl'), known = Object.keys(columns).filter(name => name !== 'replay' && at(name, i) !== null).sort();
    for (const name of known) {
      const term = el('dt', {textContent: name, title: meta.titles[name] || ''});
      list.append(el('div', {}, term, el('dd', {textContent: format(name, at(name, i))})));
    }
    const command = el('pre', {textContent: (at('replay', i) || meta.command || '').replace('{seed}', at('seed', i)), id: 'replay-command'});
    const copy = el('button', {textContent: 'copy', onclick: () => navigator.clipboard && navigator.clipboard.writeText(command.textContent)});
    const digest = at('record', i), nulls = Object.keys(columns).length - known.length - 1;
    box.replaceChildren(el('h3', {textContent: meta.coordinates.map(name => name + ' ' + at(name, i)).join(' · ')}),
      el('p', {}, 'This command replays it' + (digest ? ' (digest ' + digest + ') ' : ' '), copy), command,
      el('p', {className: 'faint', textContent: 'What was measured in it (' + nulls + ' more measures are null in it):'}), list);
  }
  const pickers = {};
  function reset(shown) {
    Object.assign(state, {pick: {}, cut: '', text: '', page: 0, sort: ''}, shown ? {shown: shown} : {});
    $('find').value = '';
  }
  function known(name, value) {
    const words = [...new Set(Array.from({length: count}, (_, i) => String(at(name, i))))];
    return words.includes(value) ? value : words.filter(word => value.startsWith(word)).sort((a, b) => b.length - a.length)[0] || '';
  }
  function clicked(data) {
    if (!Array.isArray(data) || data.length < 3 || typeof data[0] !== 'string') return;
    now($('trials')); reset();
    state.pick.label = known('label', data[0]); state.pick.nodes = String(data[1]);
    if (data[2] === 'healthy' || data[2] === 'partitioned') state.cut = data[2]; else if (data[2]) state.pick.duration = String(data[2]);
    render(); $('trials').scrollIntoView({behavior: 'smooth'});
  }
  function linked(event) {
    if (event.target.closest("a[href^='#']")) now($('trials'));
    const link = event.target.closest('[data-rows]');
    if (!link) return;
    const wanted = JSON.parse(link.dataset.rows);
    reset(wanted.columns ? meta.coordinates.concat(wanted.columns.filter(name => columns[name])) : meta.columns.slice());
    Object.assign(state.pick, wanted.pick || {}); state.cut = wanted.cut || '';
    const box = wanted.figure && $(wanted.figure), menus = box && box.layout && box.layout.updatemenus;
    const chosen = menus && menus.length && /^(\d+) nodes$/.exec(menus[0].buttons[menus[0].active].label);
    if (chosen) state.pick.nodes = chosen[1];
    render();
  }

  function open() {
    meta = read('meta'); ({count, columns} = read('rows')); state.shown = meta.columns.slice();
    for (const name of meta.pickers) {
      const select = el('select', {ariaLabel: name}, el('option', {value: '', textContent: 'any ' + name}));
      select.onchange = () => { state.pick[name] = select.value; state.page = 0; render(); };
      const words = new Set(Array.from({length: count}, (_, i) => at(name, i)));
      for (const word of words) select.append(el('option', {value: String(word), textContent: String(word)}));
      pickers[name] = select; $('pickers').append(select);
    }
    $('cut').onchange = () => { state.cut = $('cut').value; state.page = 0; render(); };
    $('find').oninput = () => { state.text = $('find').value.toLowerCase(); state.page = 0; render(); };
    $('before').onclick = () => { state.page = Math.max(0, state.page - 1); render(); };
    $('after').onclick = () => { state.page++; render(); };
    $('all-columns').onchange = () => {
      state.shown = $('all-columns').checked ? Object.keys(columns).filter(name => name !== 'replay') : meta.columns.slice();
      render();
    };
    $('reset').onclick = () => { reset(meta.columns.slice()); $('all-columns').checked = false; render(); };
    render();
    if (count) detail(0);
  }

  // ---- begin
  document.addEventListener('click', linked);
  if (pick) pick.onchange = showTrial;
  for (const box of document.querySelectorAll('.plot[data-figure]')) when(box, () => draw(box));
  when($('single'), showTrial);
  when($('trials'), open);
  if (location.hash) {
    now($('trials'));
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target) target.scrollIntoView();
  }
})();
"""
# What the browser is told to refuse: everything but what stands in the page itself.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; form-action 'none'"


def plotly_js() -> str:
    """plotly.js, which browsers compile once in this form: a function in parentheses is compiled when it is read, one that is an argument is skimmed
    then and compiled when it is called (https://v8.dev/blog/preparser, "PIFEs"), and all of plotly.js is one function.  A third less to start it."""
    text = get_plotlyjs()
    head, begins, body = text.partition("this, () => {")
    body, ends, tail = body.rpartition("}));")
    return f"{head}this, (() => {{{body}}})));{tail}" if begins and ends else text


def write_page(path: Path, title: str, said: str, nav: Sequence[tuple[str, str]], sections: Sequence[str]) -> None:
    """Write one page that needs nothing else: heading, what it is about, links to its sections (anchor, text), the sections, and all scripts."""
    links = "".join(f"<a href='#{anchor}'>{html.escape(text)}</a>" for anchor, text in nav)
    head = (
        f"<meta charset=utf-8><meta name=viewport content='width=device-width'><meta http-equiv=Content-Security-Policy content=\"{POLICY}\">"
        f"<title>{html.escape(title)}</title><style>{CSS}</style>"
    )
    text = "\n".join(sections)
    body = [
        f"<h1>{html.escape(title)}</h1><p class=faint>{said}</p>",
        "<noscript>The figures and the table of trials need JavaScript.</noscript>",
        "<p id=old-browser hidden>The figures and the table of trials need a browser of 2023 or later.</p>",
        f"<nav>{links}</nav>",
        EMBEDDED.sub("", text),
        packed("packed-data", "\n".join(f"{name}\t{value}" for name, value in EMBEDDED.findall(text))),
        packed("packed-plotly", plotly_js()),
        f"<script>{JS}</script>",
    ]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, f"<!doctype html>\n<html lang=en><head>{head}</head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n")
