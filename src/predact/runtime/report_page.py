"""The page a report is written on: style sheet and template. It loads nothing and runs nothing."""

STYLE = """
:root {
  color-scheme: light dark;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  --paper: #ffffff; --card: #f6f7f9; --ink: #1b1e23; --muted: #5f6772; --grid: #dfe3e8;
  --blue: #0072b2; --sky: #3a9bd9; --accent: var(--blue);
  --best: #e3f1e9; --warn-paper: #ffe9b8; --warn-ink: #5c3a00; --warn-line: #c98500;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #16191d; --card: #1e2228; --ink: #e8eaed; --muted: #a2aab5; --grid: #343a43;
    --blue: #4a90e2; --sky: #8fd0f5; --accent: var(--sky);
    --best: #1d3a2c; --warn-paper: #46330a; --warn-ink: #ffdf9e; --warn-line: #c98500;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem clamp(.9rem, 3vw, 2.5rem) 4rem; max-width: 72rem;
  background: var(--paper); color: var(--ink); font: 16px/1.55 var(--sans); overflow-wrap: anywhere;
}
h1 { font-size: 1.15rem; font-weight: 600; color: var(--muted); margin: .5rem 0 0; }
h2 {
  font-size: 1.3rem; margin: 3rem 0 .8rem; padding-top: 1.1rem; border-top: 1px solid var(--grid);
  line-height: 1.3;
}
p { max-width: 46rem; margin: .6rem 0; }
.headline {
  font-size: clamp(1.3rem, 3.4vw, 1.75rem); line-height: 1.32; font-weight: 600; max-width: 50rem;
  margin: .2rem 0 1.4rem;
}
.warning {
  background: var(--warn-paper); color: var(--warn-ink); border: 1px solid var(--warn-line); border-left-width: .5rem;
  border-radius: .4rem; padding: .7rem 1rem; font-weight: 600; margin-bottom: 1.2rem;
}
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; font-size: .9rem; margin: 1.2rem 0 0; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: .2em; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); gap: .8rem; margin: 1rem 0; }
.numbers div {
  background: var(--card); border-radius: .5rem; padding: .8rem 1rem; display: flex; flex-direction: column;
}
.numbers dt { color: var(--muted); font-size: .85rem; line-height: 1.35; }
.numbers dd { margin: 0; }
.numbers .value {
  font-size: 1.9rem; font-weight: 650; line-height: 1.25; font-variant-numeric: tabular-nums; margin-top: auto;
}
.numbers .beside { color: var(--muted); font-size: .85rem; line-height: 1.35; }
.facts {
  display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .25rem 1.4rem; margin: .8rem 0;
  font-size: .95rem;
}
.facts dt { color: var(--muted); }
.facts dd { margin: 0; font-variant-numeric: tabular-nums; }
.notes {
  border-left: .25rem solid var(--warn-line); margin: 1rem 0; padding: .1rem 0 .1rem 1.6rem; max-width: 50rem;
  font-size: .95rem;
}
.notes li { margin: .35rem 0; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; font-size: .95rem; padding-bottom: .4rem; white-space: nowrap; }
caption span { font-weight: 400; color: var(--muted); margin-left: .6rem; }
th, td { padding: .32rem .7rem; border-bottom: 1px solid var(--grid); text-align: right; white-space: nowrap; }
thead th {
  color: var(--muted); font-weight: 500; vertical-align: bottom; white-space: normal; line-height: 1.25;
  min-width: 4.6rem;
}
thead .long { min-width: 7.5rem; }
tbody th { font-weight: 500; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
.best { font-weight: 700; background: var(--best); }
.worst { color: var(--muted); }
.headline-row th:first-child, .headline-row td:not(.best) { background: var(--card); }
.headline-row th { font-weight: 700; }
.baseline th { font-style: italic; font-weight: 400; }
.uncalibrated th { padding-left: 1.6rem; color: var(--muted); font-weight: 400; }
.tag {
  font: normal 400 .72rem/1 var(--sans); color: var(--muted); border: 1px solid var(--grid); border-radius: .8rem;
  padding: .08rem .45rem; margin-left: .45rem;
}
.legend { color: var(--muted); font-size: .82rem; margin: -.5rem 0 1rem; }
.gallery {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.6rem 2rem;
  margin: 1.2rem 0;
}
figure { margin: 0; max-width: 36rem; break-inside: avoid; }
figure svg, figure img { display: block; width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
img.paper { background: #ffffff; border-radius: .4rem; }
figcaption { color: var(--muted); font-size: .85rem; line-height: 1.4; margin-top: .4rem; }
code { font: .85em var(--mono); }
@media (max-width: 34rem) {
  .facts { grid-template-columns: 1fr; gap: 0; }
  .facts dd { margin-bottom: .5rem; }
  th, td { padding: .3rem .5rem; }
  .tag { display: table; margin: .1rem 0; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav { display: none; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: .2rem .35rem; }
  thead th, thead .long { min-width: 0; }
  .gallery { grid-template-columns: 1fr 1fr; gap: 1rem; }
  h2 { break-after: avoid; }
  tr, .numbers div, .notes li { break-inside: avoid; }
  .warning, .best, .numbers div { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

PAGE = """
{%- macro paragraph(block) %}
<p>{{ block.text }}</p>
{% endmacro %}
{%- macro notes(block) %}
{% if block.items %}
<ul class="notes">
{% for item in block.items %}
<li>{{ item }}</li>
{% endfor %}
</ul>
{% endif %}
{% endmacro %}
{%- macro facts(block) %}
<dl class="facts">
{% for name, value in block.items %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl>
{% endmacro %}
{%- macro numbers(block) %}
<dl class="numbers">
{% for name, value, beside in block.items %}
<div><dt>{{ name }}</dt><dd class="value">{{ value }}</dd><dd class="beside">{{ beside }}</dd></div>
{% endfor %}
</dl>
{% endmacro %}
{%- macro breakable(name) %}
{% for part in name.split('_') %}{{ part }}{{ '' if loop.last else '_' }}<wbr>{% endfor %}
{% endmacro %}
{%- macro results(block) %}
<div class="scroll" tabindex="0">
<table>
<caption>{{ block.table.title }}{% if block.table.caption %}<span>{{ block.table.caption }}</span>{% endif %}</caption>
<thead><tr><th scope="col">model</th>
{% for column in block.table.columns %}
<th scope="col"{% if column|length > 20 %} class="long"{% endif %}>{{ breakable(column) }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in block.table.rows %}
<tr class="{{ row.role }}{{ '-row' if row.role == 'headline' }}{{ ' uncalibrated' if row.is_uncalibrated }}">
<th scope="row">{{ row.name }}{% if row.tag %}<span class="tag">{{ row.tag }}</span>{% endif %}</th>
{%- for cell in row.cells %}<td{% if cell.mark %} class="{{ cell.mark }}"{% endif %}>{{ cell.text }}</td>{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="legend">Bold: best of its column; grey: worst.</p>
{% endmacro %}
{%- macro gallery(block) %}
<div class="gallery">
{% for picture in block.pictures %}
<figure>{{ embed(picture) }}{% if picture.caption %}<figcaption>{{ picture.caption }}</figcaption>{% endif %}</figure>
{% endfor %}
</div>
{% endmacro %}
{%- set write = {'paragraph': paragraph, 'notes': notes, 'facts': facts, 'numbers': numbers, 'results': results,
                 'gallery': gallery} -%}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{{ report.title }}</title>
<style>{{ style }}</style>
</head>
<body>
<header>
{% if report.warning %}
<div class="warning" role="note">{{ report.warning }}</div>
{% endif %}
<h1>{{ report.title }}</h1>
<p class="headline">{{ report.headline }}</p>
<nav aria-label="Sections">
{% for section in report.sections %}
<a href="#section-{{ loop.index }}">{{ breakable(section.title) }}</a>
{% endfor %}
</nav>
</header>
<main>
{% for section in report.sections %}
<section id="section-{{ loop.index }}">
<h2>{{ breakable(section.title) }}</h2>
{% for block in section.blocks %}
{{ write[block.kind](block) }}
{%- endfor %}
</section>
{% endfor %}
</main>
</body>
</html>
"""
