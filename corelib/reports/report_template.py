"""The template of the report, for Jinja2. It is a Python module so that its text is part of the report's address."""

from __future__ import annotations

CHART_CAPTIONS = {
    "tradeoff": "Unlearning accuracy against retention of styles, with 95 % intervals. The upper right corner is best.",
    "values": "Every number with its 95 % interval, and the paper's value if there is one.",
    "styles": "Share of the images that are recognised as the style of their prompt. Forget styles are left of the "
    "line: a low share is good there, a high share elsewhere.",
    "confusion": "Confusion matrix: the prompted style (rows) and the recognised style (columns). Forget styles are "
    "above the line; a bright cell off the diagonal shows what a style has turned into.",
    "losses": "The two terms of the loss during training, averaged over 2 % of the steps.",
}
"""What the charts of a table show, by name."""

TEMPLATE = """\
{% macro count_section(section) %}
<h3>{{ section.name }}: {{ section.title }}</h3>
{% if section.meaning %}<p class="quiet">{{ section.meaning }}</p>{% endif %}
{% for table in section.tables %}
<div class="scroll"><table>
<tr><th>{{ table.title }}</th>{% for head in table.heads %}<th>{{ head }}</th>{% endfor %}
{% for column in table.columns %}<th>{{ column }}</th>{% endfor %}</tr>
{% for entries, cells in table.rows %}
<tr>{% for entry in entries %}<td>{{ entry }}</td>{% endfor %}
{% for cell in cells %}
<td class="number">{{ cell.share }}{% if cell.number %}<sup>{{ cell.number }}</sup>{% endif %}
<small>{{ cell.interval }}</small></td>
{% endfor %}
</tr>
{% endfor %}
</table></div>
{% for number, note in table.notes.items() %}<p class="quiet"><sup>{{ number }}</sup> {{ note }}.</p>{% endfor %}
{% endfor %}
<figure><img src="{{ section.picture.data }}" alt="{{ section.picture.caption }}" loading="lazy">
<figcaption>{{ section.picture.caption }}</figcaption></figure>
{% endmacro %}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ study }}: report</title>
<style>
:root { color-scheme: light; --ink: #1b1f24; --quiet: #5b6570; --line: #d8dee4; --tint: #f5f7f9; --mark: #9a3412; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; color: var(--ink); background: #fff;
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: .5rem 0 0; font-size: 1.7rem; }
h2 { margin: 2.5rem 0 .5rem; padding-top: .5rem; border-top: 1px solid var(--line); font-size: 1.3rem; }
h3 { margin: 1.5rem 0 .5rem; font-size: 1.05rem; }
p, li { max-width: 46rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .75rem 0; }
a { color: #0b5cad; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin-bottom: .75rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { background: var(--tint); white-space: nowrap; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
small, .quiet { color: var(--quiet); }
td small { display: block; }
.differs { color: var(--mark); font-weight: 600; }
.supported { color: #11633b; font-weight: 600; }
.contradicted { color: var(--mark); font-weight: 600; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
figure.images img { image-rendering: pixelated; }
figcaption { color: var(--quiet); font-size: .9rem; max-width: 46rem; }
details { margin: .5rem 0; }
summary { cursor: pointer; }
td.key { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .8rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: .75rem; } th, td { padding: .25rem .4rem; } table { font-size: .8rem; } }
</style>
</head>
<body>
<header>
<h1>Study {{ study }}</h1>
<p>{{ num_built }} of {{ num_rows }} rows of the tables are built.
{% if claims %}
Of the paper's {{ claims | length }} claims, by the numbers of this study: {{ verdicts["this study"] }};
by the paper's own numbers: {{ verdicts["paper"] }}.
{% endif %}
Its jobs took {{ wall_time }}, of which {{ gpu_time }} on a GPU.</p>
<nav>
{% if claims %}<a href="#claims">Claims</a>{% endif %}
{% for table in tables %}<a href="#{{ table.name }}">{{ table.name | replace("table", "Table ") }}</a>{% endfor %}
{% if figures or missing_figures %}<a href="#figures">Figures</a>{% endif %}
{% if distances or missing_distances %}<a href="#distances">Distances</a>{% endif %}
{% if probes or missing_probes %}<a href="#probes">Probes</a>{% endif %}
{% if sequences or missing_sequences %}<a href="#sequences">Sequences</a>{% endif %}
{% if has_gate %}<a href="#gate">Gate</a>{% endif %}
<a href="#protocol">Protocol</a> <a href="#costs">Costs</a> <a href="#provenance">Provenance</a>
</nav>
</header>

{% if claims %}
<h2 id="claims">Claims of the paper</h2>
<p class="quiet">{{ claims_note | replace("*", "") }}</p>
<div class="scroll"><table>
<tr><th>section</th><th>claim</th><th>by the paper's numbers</th><th>by this study</th></tr>
{% for outcome, theirs, ours in claims %}
<tr><td>{{ outcome.claim.section }}</td>
<td>{{ outcome.claim.sentence }}{% if outcome.claim.reading %}<small>{{ outcome.claim.reading }}</small>{% endif %}</td>
<td class="{{ theirs.split()[0] }}">{{ theirs }}</td><td class="{{ ours.split()[0] }}">{{ ours }}</td></tr>
{% endfor %}
</table></div>
{% endif %}

{% for table in tables %}
<h2 id="{{ table.name }}">{{ table.name | replace("table", "Table ") }}</h2>
{% if not table.tasks %}<p>None of its rows is built.</p>{% endif %}
{% for task, lines in table.tasks.items() %}
<h3>{{ task }}</h3>
<div class="scroll"><table>
<tr><th>algorithm</th>{% for metric in table.metrics %}<th>{{ metric }}</th>{% endfor %}</tr>
{% for title, remark, values in lines %}
<tr><td>{{ title }}{% if remark %}<small class="differs">{{ remark }}</small>{% endif %}</td>
{% for value in values %}
<td class="number{% if value.differs %} differs{% endif %}">{{ value.text }}
{%- if value.interval %}<small>{{ value.interval }}</small>{% endif %}
{%- if value.published %}<small>paper {{ value.published }}</small>{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</table></div>
{% endfor %}
{% for note in table.notes %}<p class="quiet">{{ note }}</p>{% endfor %}
{% if table.missing %}
<details><summary>{{ table.missing | length }} rows are not built</summary><ul>
{% for row in table.missing %}<li>{{ row }}</li>{% endfor %}
</ul></details>
{% endif %}
{% for picture in table.pictures %}
<figure><img src="{{ picture.data }}" alt="{{ picture.caption }}" loading="lazy">
<figcaption>{{ picture.caption }}</figcaption></figure>
{% endfor %}
{% endfor %}

{% if figures or missing_figures %}
<h2 id="figures">Figures</h2>
{% for picture in figures %}
<figure class="images"><img src="{{ picture.data }}" alt="{{ picture.caption }}" loading="lazy">
<figcaption>{{ picture.name }}. {{ picture.caption }}</figcaption></figure>
{% endfor %}
{% if missing_figures %}<p>Not built: {{ missing_figures | join(", ") }}.</p>{% endif %}
{% endif %}

{% if distances or missing_distances %}
<h2 id="distances">Distances to the retrained models</h2>
<p class="quiet">{{ distances_note }}</p>
{% for name, tasks in distances.items() %}
{% for task, lines in tasks.items() %}
<h3>{{ name | replace("distances", "Table ") }}, {{ task }}</h3>
<div class="scroll"><table>
<tr>{% for column in distances_header %}<th>{{ column }}</th>{% endfor %}</tr>
{% for entries in lines %}
<tr>{% for entry in entries %}<td{% if not loop.first %} class="number"{% endif %}>{{ entry }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endfor %}
{% endfor %}
{% if missing_distances %}<p>Not built: {{ missing_distances | join(", ") }}.</p>{% endif %}
{% endif %}

{% if probes or missing_probes %}
<h2 id="probes">Probes</h2>
<p class="quiet">{{ probes_note }}</p>
{% for probe in probes %}{{ count_section(probe) }}{% endfor %}
{% if missing_probes %}<p>Not built: {{ missing_probes | join(", ") }}.</p>{% endif %}
{% endif %}

{% if sequences or missing_sequences %}
<h2 id="sequences">Sequences</h2>
<p class="quiet">{{ sequences_note }}</p>
{% for sequence in sequences %}{{ count_section(sequence) }}{% endfor %}
{% if missing_sequences %}<p>Not built: {{ missing_sequences | join(", ") }}.</p>{% endif %}
{% endif %}

{% if has_gate %}
<h2 id="gate">Gate: the original model</h2>
{% if gate %}
<div class="scroll"><table>
<tr><th>metric</th><th>this study</th><th>paper</th><th>p (Fisher)</th><th>outcome</th></tr>
{% for found in gate %}
<tr><td>{{ found.metric }}</td>
<td class="number">{{ found.ours.percent }}<small>{{ found.ours.k }} of {{ found.ours.n }}</small></td>
<td class="number">{{ found.published.percent }}<small>{{ found.published.k }} of {{ found.published.n }}</small></td>
<td class="number">{{ "%.3g" | format(found.probability) }}</td>
<td>{{ "passed" if found.passes else "failed" }}</td></tr>
{% endfor %}
</table></div>
{% else %}<p>The images of the original model are not built.</p>{% endif %}
{% endif %}

<h2 id="protocol">Protocol</h2>
<p>All settings of this study that determine its numbers, including those that the paper leaves open.</p>
{% for section, leaves in protocol.items() %}
<details><summary>{{ section }}</summary><div class="scroll"><table>
{% for key, value in leaves %}
<tr><td class="key">{{ key }}</td><td class="key">{{ value }}</td></tr>
{% endfor %}
</table></div></details>
{% endfor %}

<h2 id="costs">Costs</h2>
<p class="quiet">{{ costs_note }}</p>
<div class="scroll"><table>
<tr>{% for name in cost_header %}<th>{{ name }}</th>{% endfor %}</tr>
{% for entries in costs %}
<tr>{% for entry in entries %}<td{% if loop.index > 2 %} class="number"{% endif %}>{{ entry }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>

<h2 id="provenance">Provenance</h2>
<div class="scroll"><table>
<tr><th>commit</th><th>device</th><th>host</th><th>jobs</th><th>last finished</th></tr>
{% for commit, device, host, count, finished in jobs %}
<tr><td class="key">{{ commit }}</td><td>{{ device }}</td><td>{{ host }}</td><td class="number">{{ count }}</td>
<td>{{ finished }}</td></tr>
{% endfor %}
</table></div>
{% for line in environment %}<p class="quiet">{{ line }}</p>{% endfor %}
</body>
</html>
"""
