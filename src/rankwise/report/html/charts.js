// The interactive charts. A chart is drawn when it comes near the window, and again when the colours
// change. A click on a mark leads to its run.
const drawings = new Map(); // element -> { spec, result, state }

// The rows of a dataset, which the page stores as column names and lists of values.
function rowsOf(dataset) {
  return dataset.rows.map((values) => {
    const row = {};
    dataset.columns.forEach((name, i) => {
      if (values[i] !== null) row[name] = values[i];
    });
    if (row.run in data.runs) row.command = data.runs[row.run].command;
    return row;
  });
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

async function draw(element, spec, state) {
  const datasets = Object.entries(spec.datasets).map(([name, dataset]) => [
    name,
    dataset.columns ? rowsOf(dataset) : dataset,
  ]);
  const whole = { ...themed(spec), datasets: Object.fromEntries(datasets) };
  drawings.get(element)?.result?.finalize();
  const result = await window.vegaEmbed(element, whole, {
    actions: false,
    ast: true, // Vega interprets expressions; the page's policy forbids to compile them
    renderer: "svg",
    defaultStyle: false,
    config: vegaConfig(),
    tooltip: { disableDefaultStyle: true, sanitize: escaped },
  });
  result.view.addEventListener("click", (_, item) => {
    if (item?.datum?.run in data.runs) location.hash = `run/${item.datum.run}`;
  });
  drawings.set(element, { spec, result, state });
  if (state?.focus) result.view.signal("focus", state.focus).run();
  element.dataset.drawn = isDark() ? "dark" : "light";
}

function redraw() {
  for (const [element, { spec, state }] of drawings) {
    if (element.isConnected) draw(element, spec, state);
    else drawings.delete(element);
  }
}

function chartOf(section) {
  return data.charts.find((chart) => chart.key === section.dataset.chart);
}

const nearWindow = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      nearWindow.unobserve(target);
      const chart = chartOf(target.closest(".chart"));
      draw(target, chart.panels[Number(target.dataset.panel)].spec, chart.state);
    }
  },
  { rootMargin: "600px" },
);

// A chart's data as a table ---------------------------------------------------------------------

function dataTable(chart) {
  const hasPanels = chart.panels.length > 1;
  const titles = chart.columns.map(([, title]) => title);
  const heads = (hasPanels ? ["panel", ...titles] : titles).map((title) => h("th", { scope: "col" }, title));
  const rows = chart.panels.flatMap((panel) => {
    const first = hasPanels ? [panel.title] : [];
    return rowsOf(panel.spec.datasets[chart.table]).map((row) => dataRow(chart, row, first));
  });
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
  if (field === "run" && value in data.runs) return h("a", { href: `#run/${value}` }, value.slice(0, 8));
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
    drawings.get(element)?.result.view.signal("focus", chart.state.focus).run();
  }
}

for (const section of all(".chart")) {
  const chart = chartOf(section);
  chart.state = { focus: "" };
  for (const element of all(".drawing", section)) nearWindow.observe(element);
  const details = find("details.data", section);
  details.addEventListener("toggle", () => {
    const place = find(".scroll", details);
    if (details.open && !place.firstChild) place.append(dataTable(chart));
  });
  for (const button of all(".legend button", section)) {
    button.addEventListener("click", () => setFocus(section, chart, button.dataset.focus));
  }
}
