// The interactive charts. A chart is drawn when it comes near the window, and again when the colours,
// the filters or its axes change. A click on a mark leads to its run.
const drawings = new Map(); // element -> { make, result }

// The rows of a dataset that pass the filters. The page stores them as column names and lists of
// values.
function rowsOf(dataset) {
  const rows = dataset.rows.map((values) => {
    const row = {};
    dataset.columns.forEach((name, i) => {
      if (values[i] !== null) row[name] = values[i];
    });
    return row;
  });
  return rows.filter((row) => row.method === undefined || passesCurve(row.method, row.rank));
}

// A copy of a specification, on a dark page with the colours for it.
function themed(value) {
  if (typeof value === "string") return (isDark() && data.dark[value]) || value;
  if (Array.isArray(value)) return value.map(themed);
  if (value === null || typeof value !== "object") return value;
  const entries = Object.entries(value).map(([key, item]) => [key, key === "datasets" ? item : themed(item)]);
  return Object.fromEntries(entries);
}

// Vega's configuration with the page's font and colours.
function vegaConfig() {
  // Vega does not know CSS variables: an invisible element tells what they stand for.
  const probe = find(".probe") ?? document.body.appendChild(h("i", { class: "probe", hidden: "" }));
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const [text, soft, grid] = ["text", "soft", "grid"].map(colour);
  return {
    background: null,
    font: getComputedStyle(document.documentElement).fontFamily,
    view: { stroke: null },
    axis: {
      domainColor: soft,
      tickColor: soft,
      gridColor: grid,
      labelColor: soft,
      titleColor: text,
      labelFontSize: 12,
      titleFontSize: 12,
      titleFontWeight: 400,
      titlePadding: 8,
      labelPadding: 5,
      tickSize: 4,
      labelOverlap: true,
    },
    axisX: { grid: false, tickCount: 6 },
    axisY: { tickCount: 6, domain: false, ticks: false },
  };
}

function escaped(value) {
  return String(value).replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

// What is shown when a mark is hovered; a run's command is added once the runs are unpacked.
function tooltipHtml(value) {
  const shown = { ...value };
  const command = details?.runs[value.run]?.command;
  if (command) shown.command = command;
  const known = Object.entries(shown).filter(([, text]) => text !== undefined && text !== "undefined");
  const rows = known.map(([key, text]) => {
    return `<tr><td class="key">${escaped(key)}</td><td class="value">${escaped(text)}</td></tr>`;
  });
  return `<table>${rows.join("")}</table>`;
}

// Draw into an element what `make` returns: a specification with its rows, and a focus.
async function draw(element, make) {
  const { spec, datasets, focus } = make();
  drawings.get(element)?.result?.finalize();
  drawings.set(element, { make });
  const isEmpty = Object.values(datasets).every((rows) => !rows.some((row) => row.method ?? row.name));
  if (isEmpty) {
    element.replaceChildren(h("p", { class: "note" }, "Nothing here passes the filters."));
  } else {
    const whole = { ...themed({ ...spec, datasets: null }), datasets };
    const result = await window.vegaEmbed(element, whole, {
      actions: false,
      ast: true, // Vega interprets expressions; the page's policy forbids to compile them
      renderer: "svg",
      defaultStyle: false,
      config: vegaConfig(),
      tooltip: { disableDefaultStyle: true, sanitize: escaped, formatTooltip: tooltipHtml },
    });
    result.view.addEventListener("click", (_, item) => {
      if (item?.datum?.run) location.hash = addressOf(`run/${item.datum.run}`);
    });
    drawings.set(element, { make, result });
    if (focus) result.view.signal("focus", focus).run();
  }
  element.dataset.drawn = isDark() ? "dark" : "light";
}

function redraw() {
  for (const [element, { make }] of drawings) {
    if (element.isConnected) draw(element, make);
    else drawings.delete(element);
  }
}

function chartOf(section) {
  return data.charts.find((chart) => chart.key === section.dataset.chart);
}

// What is drawn of one panel of a chart.
function panelDrawing(chart, panel) {
  const entries = Object.entries(panel.spec.datasets).map(([name, dataset]) => [name, rowsOf(dataset)]);
  const datasets = Object.fromEntries(entries);
  // Vega warns of layers without rows.
  const layer = panel.spec.layer.filter(({ data: { name } }) => datasets[name].length).map(withRanks);
  // Vega warns of a height by row in a drawing that fits its width.
  const rowCount = new Set(datasets[chart.table].map((row) => row.curve)).size;
  const height = panel.spec.height.step ? panel.spec.height.step * rowCount : panel.spec.height;
  const drawing = { spec: { ...panel.spec, layer, height }, datasets, focus: chart.state.focus };
  return chart.choices ? withAxes(chart, panel, drawing) : drawing;
}

// One after the other, so that the first one is there soon and the page answers in between.
let lastDrawing = Promise.resolve();

function drawNext(element) {
  const chart = chartOf(element.closest(".chart"));
  const panel = chart.panels[Number(element.dataset.panel)];
  const drawIt = () => draw(element, () => panelDrawing(chart, panel));
  const pause = () => new Promise((resolve) => setTimeout(resolve));
  lastDrawing = lastDrawing.then(drawIt).catch(console.error).then(pause);
}

// An axis of ranks has ticks at the ranks that pass the filters.
function withRanks(layer) {
  const x = layer.encoding.x;
  if (x?.field !== "rank" || !x.axis?.values) return layer;
  const values = x.axis.values.filter((rank) => passes("rank", rankText(rank)));
  return { ...layer, encoding: { ...layer.encoding, x: { ...x, axis: { ...x.axis, values } } } };
}

const nearWindow = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      nearWindow.unobserve(target);
      drawNext(target);
    }
  },
  { rootMargin: "300px" },
);

// Show what passes the filters: drawings that are near the window now, others when they come near.
function refresh(section) {
  const chart = chartOf(section);
  const elements = all("[data-panel]", section);
  for (const element of elements) {
    const [model, dataset] = chart.panels[Number(element.dataset.panel)].key;
    const isShown = passes("model", model) && passes("dataset", dataset);
    element.closest("figure").hidden = !isShown;
    nearWindow.unobserve(element);
    delete element.dataset.drawn;
    if (isShown) nearWindow.observe(element);
  }
  section.hidden = elements.every((element) => element.closest("figure").hidden);
  for (const button of all(".legend button", section)) {
    button.hidden = !passes("family", data.families[button.dataset.focus]);
  }
  for (const note of all("[data-method]", section)) {
    note.hidden = !passesCurve(note.dataset.method, note.dataset.rank);
  }
  for (const notes of all("details.note", section)) notes.hidden = !find("li:not([hidden])", notes);
  const details = find("details.data", section);
  find(".scroll", details).replaceChildren();
  showData(details, chart);
}

// A chart's data as a table ---------------------------------------------------------------------

const MAX_DATA_ROWS = 500; // a longer table would take seconds to show

function dataTable(chart) {
  const hasPanels = chart.panels.length > 1;
  const titles = chart.columns.map(([, title]) => title);
  const heads = (hasPanels ? ["panel", ...titles] : titles).map((title) => h("th", { scope: "col" }, title));
  const shown = chart.panels.filter(({ key }) => passes("model", key[0]) && passes("dataset", key[1]));
  const rows = shown.flatMap((panel) => {
    const first = hasPanels ? [panel.title] : [];
    return panelDrawing(chart, panel).datasets[chart.table].map((row) => dataRow(chart, row, first));
  });
  const left = rows.length - MAX_DATA_ROWS;
  if (left > 0) rows.splice(MAX_DATA_ROWS, left, h("tr", {}, h("td", {}, `${left} more rows: filter to see them`)));
  return h("table", {}, h("caption", {}, chart.title), h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows));
}

function dataRow(chart, row, first) {
  const cells = chart.columns.map(([field]) => {
    const isNumber = typeof row[field] === "number";
    return h("td", { class: isNumber ? "number" : "" }, cellContent(field, row[field]));
  });
  return h("tr", {}, first.map((title) => h("td", {}, title)), cells);
}

function cellContent(field, value) {
  if (value === undefined || value === null) return "";
  if (field === "run") return h("a", { href: `#run/${value}` }, value.slice(0, 8));
  return typeof value === "number" ? numberText(value) : String(value);
}

function numberText(value) {
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  if (Math.abs(value) < 1e-3) return value.toPrecision(3);
  return Number(value.toPrecision(5)).toLocaleString("en-US", { maximumFractionDigits: 8 });
}

// Set up ----------------------------------------------------------------------------------------

// The button of a legend singles out its entry, or shows all again.
function setFocus(section, chart, name) {
  chart.state.focus = chart.state.focus === name ? "" : name;
  for (const button of all(".legend button", section)) {
    button.setAttribute("aria-pressed", String(button.dataset.focus === chart.state.focus));
  }
  for (const element of all(".drawing", section)) {
    drawings.get(element)?.result?.view.signal("focus", chart.state.focus).run();
  }
}

function showData(details, chart) {
  const place = find(".scroll", details);
  if (details.open && !place.firstChild) place.append(dataTable(chart));
}

for (const section of all(".chart")) {
  const chart = chartOf(section);
  chart.state = { focus: "" };
  if (chart.choices) setUpAxes(section, chart);
  const details = find("details.data", section);
  details.addEventListener("toggle", () => showData(details, chart));
  for (const button of all(".legend button", section)) {
    button.addEventListener("click", () => setFocus(section, chart, button.dataset.focus));
  }
  refresh(section);
}
filterListeners.push(() => all(".chart").forEach(refresh));
