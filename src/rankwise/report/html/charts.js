// The interactive charts: drawn when they come near the window, again when colours change; a click follows a run.
const drawn = new Map(); // element -> { spec, view, wanted }

function expand(table) {
  return table.rows.map((row) => {
    const one = {};
    table.columns.forEach((name, i) => { if (row[i] !== null) one[name] = row[i]; });
    if (one.run in data.runs) one.command = data.runs[one.run].command;
    return one;
  });
}

function themed(value) { // a copy, in the colours of the dark page if it is
  if (typeof value === "string") return (isDark() && data.dark[value]) || value;
  if (Array.isArray(value)) return value.map(themed);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, key === "datasets" ? one : themed(one)]));
}

function look() {
  const probe = find(".probe") ?? document.body.appendChild(h("i", { class: "probe", hidden: "" }));
  const colour = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
  const [text, soft, grid] = ["text", "soft", "grid"].map(colour);
  const font = getComputedStyle(document.documentElement).fontFamily;
  return {
    background: null, font,
    view: { stroke: null },
    axis: { domainColor: soft, tickColor: soft, gridColor: grid, labelColor: soft, titleColor: text, labelFontSize: 12, titleFontSize: 12,
      titleFontWeight: 400, titlePadding: 8, labelPadding: 5, tickSize: 4, labelOverlap: true },
    axisX: { grid: false, tickCount: 6 }, axisY: { tickCount: 6, domain: false, ticks: false },
  };
}

async function draw(element, spec, wanted) {
  const whole = { ...themed(spec), datasets: Object.fromEntries(Object.entries(spec.datasets).map(([k, v]) => [k, v.columns ? expand(v) : v])) };
  const tooltip = { disableDefaultStyle: true, sanitize: (value) => String(value).replaceAll("&", "&amp;").replaceAll("<", "&lt;") };
  const before = drawn.get(element);
  before?.result?.finalize();
  const result = await window.vegaEmbed(element, whole, { actions: false, ast: true, renderer: "svg", defaultStyle: false, config: look(), tooltip });
  result.view.addEventListener("click", (_, item) => {
    if (item?.datum?.run in data.runs) location.hash = `run/${item.datum.run}`;
  });
  drawn.set(element, { spec, result, wanted });
  if (wanted?.focus) result.view.signal("focus", wanted.focus).run();
  element.dataset.drawn = isDark() ? "dark" : "light";
}

function redraw() {
  for (const [element, { spec, wanted }] of drawn) if (element.isConnected) draw(element, spec, wanted); else drawn.delete(element);
}

const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    const section = target.closest(".chart");
    const chart = data.charts.find((one) => one.key === section.dataset.chart);
    draw(target, chart.panels[Number(target.dataset.panel)].spec, chart.wanted);
  }
}, { rootMargin: "600px" });

function dataTable(chart) {
  const head = h("tr", {}, chart.columns.map(([, title]) => h("th", { scope: "col" }, title)));
  const rows = chart.panels.flatMap((panel) => expand(panel.spec.datasets[chart.table]).map((row) => [panel.title, row]));
  const several = chart.panels.length > 1;
  if (several) head.prepend(h("th", { scope: "col" }, "panel"));
  const body = rows.map(([title, row]) => h("tr", {}, several ? h("td", {}, title) : null,
    chart.columns.map(([field]) => h("td", { class: typeof row[field] === "number" ? "number" : "" }, value(field, row[field])))));
  return h("table", {}, h("caption", {}, chart.title), h("thead", {}, head), h("tbody", {}, body));
}

function value(field, one) {
  if (one === undefined || one === null) return "";
  if (field === "run" && one in data.runs) return h("a", { href: `#run/${one}` }, one.slice(0, 8));
  return typeof one === "number" ? number(one) : String(one);
}

function number(one) {
  if (Number.isInteger(one)) return one.toLocaleString("en-US");
  return Math.abs(one) >= 1e-3 ? Number(one.toPrecision(5)).toLocaleString("en-US", { maximumFractionDigits: 8 }) : one.toPrecision(3);
}

for (const section of all(".chart")) {
  const chart = data.charts.find((one) => one.key === section.dataset.chart);
  chart.wanted = { focus: "" };
  for (const element of all(".drawing", section)) near.observe(element);
  const details = find("details.data", section);
  details.addEventListener("toggle", () => {
    const place = find(".scroll", details);
    if (details.open && !place.firstChild) place.append(dataTable(chart));
  });
  for (const button of all(".legend button", section)) {
    button.addEventListener("click", () => {
      chart.wanted.focus = chart.wanted.focus === button.dataset.focus ? "" : button.dataset.focus;
      for (const one of all(".legend button", section)) one.setAttribute("aria-pressed", String(one.dataset.focus === chart.wanted.focus));
      for (const element of all(".drawing", section)) drawn.get(element)?.result.view.signal("focus", chart.wanted.focus).run();
    });
  }
}
