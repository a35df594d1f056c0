// One run: a view made from the data that the page carries, at #run/ID.
const title = document.title;
const jobs = { train: "training run", trial: "trial of a search" };
const part = (one) => (one && typeof one === "object" && "part" in one && Object.keys(one).length === 1 ? data.parts[one.part] : one);

function flat(value, key = "") {
  const one = part(value);
  if (one === null || typeof one !== "object" || (Array.isArray(one) && one.every((item) => item === null || typeof item !== "object"))) {
    return [[key, one === null ? "none" : Array.isArray(one) ? one.join(", ") || "none" : String(one)]];
  }
  return Object.entries(one).flatMap(([name, item]) => flat(item, key ? `${key}.${name}` : name));
}

const spoken = ([name, one]) => [name.replaceAll("_", " "), one];

function pairs(rows, caption) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, h("table", {},
    h("caption", {}, caption),
    h("tbody", {}, rows.map(([name, one]) => h("tr", {}, h("th", { scope: "row" }, name),
      h("td", { class: typeof one === "number" ? "number" : "wrap" }, typeof one === "number" ? number(one) : String(one)))))));
}

function grid(table, caption) {
  const body = table.rows.map((row) => h("tr", {}, row.map((one) => h("td", { class: typeof one === "number" ? "number" : "" }, value("", one)))));
  const more = table.of > table.rows.length ? `, ${table.rows.length} of ${table.of} rows` : "";
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, h("table", {}, h("caption", {}, caption + more),
    h("thead", {}, h("tr", {}, table.columns.map((name) => h("th", { scope: "col" }, name.replaceAll("_", " "))))), h("tbody", {}, body)));
}

function siblings(id) {
  const own = data.runs[id].cell;
  return Object.entries(data.runs).filter(([, run]) => ["model", "dataset", "method", "rank"].every((key) => run.cell[key] === own[key]));
}

function memory(id) {
  const [other, ledger] = siblings(id).find(([, run]) => run.measurement === "ledger" && run.status === "ok") ?? [];
  if (!ledger) return [];
  const parts = data.kinds.filter(([column]) => ledger.metrics[column] > 0);
  const most = Math.max(...parts.map(([column]) => ledger.metrics[column]));
  const bar = (column, colour) => {
    const fill = h("i");
    fill.style.width = `${(100 * ledger.metrics[column]) / most}%`;
    fill.style.background = (isDark() && data.dark[colour]) || colour;
    return fill;
  };
  const rows = parts.map(([column, name, colour]) => h("tr", {}, h("th", { scope: "row" }, name),
    h("td", { class: "number" }, number(ledger.metrics[column])), h("td", {}, bar(column, colour))));
  return [h("h2", {}, "Memory of a step"), h("p", {}, `Bytes at the peak, ${number(ledger.metrics.peak_bytes)} in all`,
    other === id ? "." : [", from this cell's ", h("a", { href: `#run/${other}` }, "ledger"), "."]),
  h("div", { class: "scroll bars" }, h("table", {}, h("caption", {}, "Bytes at the peak, by kind"), h("tbody", {}, rows)))];
}

function view(id) {
  const run = data.runs[id], cell = run.cell;
  const others = siblings(id).filter(([other]) => other !== id);
  const copy = h("button", { type: "button", class: "copy", onclick: () => navigator.clipboard.writeText(run.command).then(() => { copy.textContent = "Copied"; }) }, "Copy");
  const { code, environment: lock, ...settings } = run.request;
  const head = [
    h("p", { class: "back" }, h("a", { href: "#runs" }, "\u2190 All runs")),
    h("h1", {}, run.name),
    h("p", { class: "facts" }, [jobs[run.measurement] ?? `profile: ${run.measurement}`, `${cell.model} on ${cell.dataset}`, id,
      run.status === "ok" ? "ended well" : `${run.status.replaceAll("_", " ")}: ${run.reason ?? ""}`].join(" \u00b7 ")),
    h("h2", {}, "Make it again"), h("div", {}, navigator.clipboard ? copy : null, h("pre", {}, h("code", {}, run.command))),
  ];
  const curve = run.history && run.history.columns.includes("selection_loss_nats")
    ? [h("h2", {}, "Loss by epoch"), h("div", { class: "drawing", "data-own": "" })] : [];
  const numbers = Object.entries({ ...run.metrics, ...(run.split ? { split: run.split } : {}) });
  return [
    ...head,
    numbers.length ? [h("h2", {}, "What came out"), pairs(numbers.map(spoken), "Metrics")] : [],
    run.cost ? pairs(Object.entries(run.cost).map(spoken), "Cost: times and peaks, which vary") : [],
    curve, run.history ? h("details", { class: "data" }, h("summary", {}, "The history as a table"), grid(run.history, "History")) : [],
    run.rows ? [h("h2", {}, "Rows"), grid(run.rows, "Measured rows")] : [],
    memory(id),
    h("h2", {}, "Where it ran"), pairs([["lock", `${lock.lock}, digest ${lock.digest}`], ...flat(run.environment), ...flat(run.job)], "Environment"),
    h("h2", {}, "What it was asked"), run.selected ? pairs(flat(run.selected), "Chosen by its search, and left open in the request") : [],
    pairs(flat(settings), "Request"),
    h("details", { class: "data" }, h("summary", {}, "Digests of the sources that it ran"), pairs(flat(code), "Sources")),
    others.length ? [h("h2", {}, "The same cell"), h("ul", { class: "others" }, others.map(([other, one]) =>
      h("li", {}, h("a", { href: `#run/${other}` }, one.measurement in jobs ? one.name : one.measurement))))] : [],
  ].flat(2);
}

let left = 0;
function route() {
  const id = /^#run\/(\w+)$/.exec(location.hash)?.[1];
  const article = document.getElementById("run"), report = document.getElementById("report");
  const away = !report.hidden;
  const known = id !== undefined && id in data.runs;
  if (known && away) left = scrollY;
  article.hidden = !known;
  report.hidden = known;
  document.title = known ? `${data.runs[id].name} | ${title}` : title;
  if (known) {
    article.replaceChildren(...view(id));
    const place = find("[data-own]", article);
    if (place) draw(place, { ...data.curve, datasets: { points: data.runs[id].history } });
    scrollTo({ top: 0, behavior: "instant" });
    article.focus({ preventScroll: true });
  } else if (!away) {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (target) target.scrollIntoView({ behavior: "instant" });
    else scrollTo({ top: left, behavior: "instant" });
  }
}
addEventListener("hashchange", route);
route();

if (!matchMedia("(min-width: 68rem)").matches) find(".contents details").open = false;
addEventListener("beforeprint", () => { for (const details of all("details")) details.open = true; });
document.documentElement.dataset.ready = "";
