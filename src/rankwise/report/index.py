"""The report: one HTML page that opens offline, with every figure inside it and the files beside it."""

import base64
import html
import re
from pathlib import Path

import jinja2
import pandas as pd

from rankwise.report import tables as layout

NARROW = 350  # points: up to this width a figure shrinks to a telephone's screen; a wider one scrolls


def render(
    study: dict,  # name, question
    figures: list[tuple[str, Path, str]],  # title, PNG or SVG (both must be there), caption
    tables: list[tuple[str, pd.DataFrame | str, Path]],  # title, frame or Markdown, CSV
    facts: dict[str, object],  # name -> value, after the study's name: runs, lock, command
) -> str:
    """The page. Its links assume that it lies one folder above the figures and the tables.

    Raises:
        FileNotFoundError: a figure's SVG is not there.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string(PAGE)
    shown = {"figures": [_figure(*one) for one in figures], "tables": [_table(*one) for one in tables]}
    return template.render(study=study, facts=facts, **shown)


def _figure(title: str, path: Path, caption: str) -> dict[str, str]:
    image = path.with_suffix(".svg").read_bytes()
    narrow = float(re.search(rb'width="([\d.]+)pt"', image)[1]) <= NARROW
    data = base64.b64encode(image).decode()
    return {"title": title, "caption": caption, "data": data, "narrow": narrow, "link": f"{path.parent.name}/{path.stem}"}


def _table(title: str, content: pd.DataFrame | str, path: Path) -> dict[str, object]:
    head = {"title": title, "link": f"{path.parent.name}/{path.name}"}
    if isinstance(content, str):
        return {**head, "text": content}
    texts = layout.formatted(content, "<b>{}</b>".format, html.escape)
    rows = list(texts.itertuples(index=False, name=None))
    return {**head, "heads": list(texts.columns), "rows": rows, "numeric": layout.numeric(content)}


# In this module, not in a file of its own: a job's sources are modules, and an edit of the page must rerun the report.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ study.name }}: {{ study.question }}</title>
<style>
:root { color-scheme: light dark; --paper: #ffffff; --text: #1a1a1a;
  --soft: #595959; --line: #d0d0d0; --card: #f5f5f3; --link: #0b57a4; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171a; --text: #ececec; --soft: #b0b4b9; --line: #43474d; --card: #202327; --link: #8cc2ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; background: var(--paper); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: break-word; }
h1 { font-size: clamp(1.4rem, 1rem + 1.6vw, 2.1rem); line-height: 1.25; margin: .5rem 0 1rem; max-width: 45rem;
  text-wrap: balance; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 3rem 0 .75rem; }
a { color: var(--link); }
a:focus-visible, .scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
figure { margin: 0; }
figcaption, p { max-width: 45rem; }
figcaption { margin-top: .5rem; }
nav ul { margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
.picture { background: #ffffff; padding: .75rem; }
.picture img { display: block; margin: 0 auto; max-width: none; }
.picture .narrow { width: min(100%, 36rem); height: auto; }
.files { color: var(--soft); font-size: .9rem; margin: .4rem 0 0; }
.table { max-height: 34rem; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { position: sticky; top: 0; background: var(--card); }
tbody tr:last-child td { border-bottom: 0; }
.number { text-align: right; }
pre { margin: 0; padding: .75rem; font-size: .85rem; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .35rem 1.25rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .9em; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .6rem; } }
@media print { .table { max-height: none; } }
</style>
</head>
<body>
<header>
<h1>{{ study.question }}</h1>
<nav aria-label="Contents"><ul>
{%- for part in figures + tables %}
<li><a href="#part{{ loop.index }}">{{ part.title }}</a></li>
{%- endfor %}
<li><a href="#made">How this was made</a></li>
</ul></nav>
</header>
<main>
{%- for figure in figures %}
<section id="part{{ loop.index }}">
<h2>{{ figure.title }}</h2>
<figure>
<div class="scroll picture" tabindex="0" role="region" aria-label="Figure: {{ figure.title }}">
<img{% if figure.narrow %} class="narrow"{% endif %}
 alt="{{ figure.title }}. {{ figure.caption }}"
 src="data:image/svg+xml;base64,{{ figure.data }}">
</div>
<figcaption>{{ figure.caption }}</figcaption>
</figure>
<p class="files"><a href="{{ figure.link }}.png">PNG</a>, <a href="{{ figure.link }}.svg">SVG</a></p>
</section>
{%- endfor %}
{%- for table in tables %}
<section id="part{{ figures | length + loop.index }}">
<h2>{{ table.title }}</h2>
<div class="scroll table" tabindex="0" role="region" aria-label="Table: {{ table.title }}">
{%- if table.text is defined %}
<pre>{{ table.text }}</pre>
{%- else %}
<table>
<thead><tr>
{%- for name in table.heads %}
<th scope="col"{% if table.numeric[loop.index0] %} class="number"{% endif %}>{{ name | safe }}</th>
{%- endfor %}
</tr></thead>
<tbody>
{%- for row in table.rows %}
<tr>
{%- for value in row %}<td{% if table.numeric[loop.index0] %} class="number"{% endif %}>{{ value | safe }}</td>{% endfor -%}
</tr>
{%- endfor %}
</tbody>
</table>
{%- endif %}
</div>
<p class="files"><a href="{{ table.link }}">CSV</a></p>
</section>
{%- endfor %}
<section id="made">
<h2>How this was made</h2>
<dl>
<dt>study</dt><dd>{{ study.name }}</dd>
{%- for name, value in facts.items() %}
<dt>{{ name }}</dt><dd>{% if name | lower in ("command", "lock") %}<code>{{ value }}</code>{% else %}{{ value }}{% endif %}</dd>
{%- endfor %}
</dl>
</section>
</main>
</body>
</html>
"""
