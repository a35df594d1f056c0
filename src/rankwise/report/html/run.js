// The view of one run, at #run/ID, made from the data that the page contains.
let details = null; // { runs, parts }, once they are unpacked
const jobNames = { train: "training run", trial: "trial of a search" };

async function unpackDetails() {
  details = await unpack("details-data");
  document.documentElement.dataset.detailed = "";
}

// A part that many runs share is stored once; a run has a reference { part: digest } to it.
function resolved(value) {
  const isReference = value && typeof value === "object" && "part" in value && Object.keys(value).length === 1;
  return isReference ? details.parts[value.part] : value;
}

// [name, text] pairs of nested settings: { a: { b: 1 } } gives [["a.b", "1"]].
function flat(value, key = "") {
  const content = resolved(value);
  const isObject = (item) => item !== null && typeof item === "object";
  if (!isObject(content)) return [[key, content === null ? "none" : String(content)]];
  if (Array.isArray(content) && !content.some(isObject)) return [[key, content.join(", ") || "none"]];
  return Object.entries(content).flatMap(([name, item]) => flat(item, key ? `${key}.${name}` : name));
}

const withSpaces = ([name, value]) => [name.replaceAll("_", " "), value];

// Tables ----------------------------------------------------------------------------------------

function scrollable(caption, ...parts) {
  const table = h("table", {}, h("caption", {}, caption), ...parts);
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
}

// A table of names and values.
function pairTable(pairs, caption) {
  const rows = pairs.map(([name, value]) => {
    const isNumber = typeof value === "number";
    const text = isNumber ? numberText(value) : String(value);
    return h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: isNumber ? "number" : "wrap" }, text));
  });
  return scrollable(caption, h("tbody", {}, rows));
}

// A table of rows that may have been thinned.
function rowTable(table, caption) {
  const rows = table.rows.map((values) => {
    const cells = values.map((value) => h("td", { class: typeof value === "number" ? "number" : "" }, cellContent("", value)));
    return h("tr", {}, cells);
  });
  const heads = table.columns.map((name) => h("th", { scope: "col" }, name.replaceAll("_", " ")));
  const thinned = table.of > table.rows.length ? `, ${table.rows.length} of ${table.of} rows` : "";
  return scrollable(caption + thinned, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows));
}

// Parts of the view -----------------------------------------------------------------------------

// [id, run] of all results with the same model, dataset, method and rank.
function sameCurve(id) {
  const own = details.runs[id].cell;
  const keys = ["model", "dataset", "method", "rank"];
  return Object.entries(details.runs).filter(([, run]) => keys.every((key) => run.cell[key] === own[key]));
}

function heading(id, run) {
  const facts = [
    jobNames[run.measurement] ?? `profile: ${run.measurement}`,
    `${run.cell.model} on ${run.cell.dataset}`,
    id,
    run.status === "ok" ? "ended well" : `${run.status.replaceAll("_", " ")}: ${run.reason ?? ""}`,
  ];
  return [
    h("p", { class: "back" }, h("a", { href: "#runs" }, "\u2190 All runs")),
    h("h1", {}, run.name),
    h("p", { class: "facts" }, facts.join(" \u00b7 ")),
  ];
}

function commandPart(run) {
  const copy = h("button", { type: "button", class: "copy" }, "Copy");
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(run.command);
    copy.textContent = "Copied";
  });
  const code = h("pre", {}, h("code", {}, run.command));
  // A browser may offer no clipboard to a page that was opened from a file.
  return [h("h2", {}, "Make it again"), h("div", {}, navigator.clipboard ? copy : null, code)];
}

function resultPart(run) {
  const metrics = Object.entries(run.metrics ?? {});
  if (run.split) metrics.push(["split", run.split]);
  const parts = [];
  if (metrics.length) parts.push(h("h2", {}, "Results"), pairTable(metrics.map(withSpaces), "Metrics"));
  if (run.cost) {
    parts.push(pairTable(Object.entries(run.cost).map(withSpaces), "Cost: times and peaks, which vary"));
  }
  return parts;
}

function historyPart(run) {
  if (!run.history) return [];
  const table = rowTable(run.history, "History");
  const details = h("details", { class: "data" }, h("summary", {}, "The history as a table"), table);
  if (!run.history.columns.includes("selection_loss_nats")) return [details];
  return [h("h2", {}, "Loss by epoch"), h("div", { class: "drawing", "data-own": "" }), details];
}

// Bars of the memory ledger of the run's curve, if there is one.
function memoryPart(id) {
  const isLedger = ([, run]) => run.measurement === "ledger" && run.status === "ok";
  const [ledgerId, ledger] = sameCurve(id).find(isLedger) ?? [];
  if (!ledger) return [];
  const kinds = data.kinds.filter(([column]) => ledger.metrics[column] > 0);
  const largest = Math.max(...kinds.map(([column]) => ledger.metrics[column]));
  const rows = kinds.map(([column, name, colour]) => {
    const size = ledger.metrics[column];
    const bar = h("i");
    bar.style.width = `${(100 * size) / largest}%`;
    bar.style.background = themed(colour);
    return h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "number" }, numberText(size)), h("td", {}, bar));
  });
  const link = h("a", { href: `#run/${ledgerId}` }, "ledger");
  const source = ledgerId === id ? "." : [", from the ", link, " of this curve."];
  const table = h("table", {}, h("caption", {}, "Bytes at the peak, by kind"), h("tbody", {}, rows));
  return [
    h("h2", {}, "Memory of a training step"),
    h("p", {}, `Bytes at the peak, ${numberText(ledger.metrics.peak_bytes)} in all`, source),
    h("div", { class: "scroll bars" }, table),
  ];
}

function environmentPart(run) {
  const lock = run.request.environment;
  const pairs = [["lock", `${lock.lock}, digest ${lock.digest}`], ...flat(run.environment), ...flat(run.job)];
  return [h("h2", {}, "Where it ran"), pairTable(pairs, "Environment")];
}

function requestPart(run) {
  const { code, environment, ...settings } = run.request;
  const parts = [h("h2", {}, "Settings")];
  if (run.selected) parts.push(pairTable(flat(run.selected), "Chosen by its search, and left open in the request"));
  const sources = h("summary", {}, "Digests of the sources that it ran");
  parts.push(pairTable(flat(settings), "Request"), h("details", { class: "data" }, sources, pairTable(flat(code), "Sources")));
  return parts;
}

function otherResults(id) {
  const others = sameCurve(id).filter(([other]) => other !== id);
  if (!others.length) return [];
  const items = others.map(([other, run]) => {
    const name = run.measurement in jobNames ? run.name : run.measurement;
    return h("li", {}, h("a", { href: `#run/${other}` }, name));
  });
  return [h("h2", {}, "Other results of this curve"), h("ul", { class: "others" }, items)];
}

// The losses of runs over each other: the colour is that of the method; the second run is dashed.
function drawLosses(element, ids) {
  const names = ids.map((id) => `${details.runs[id].name} (${id.slice(0, 8)})`);
  const withScale = (encoding) => {
    const colours = ids.map((id) => data.looks[details.runs[id].cell.method] ?? "#000000");
    const ranges = { color: colours, strokeDash: [[1, 0], [6, 4]] };
    const entries = Object.entries(encoding).map(([channel, value]) => {
      const range = ranges[channel]?.slice(0, names.length);
      return [channel, range ? { ...value, scale: { domain: names, range } } : value];
    });
    return Object.fromEntries(entries);
  };
  const layer = data.curve.layer.map((one) => ({ ...one, encoding: withScale(one.encoding) }));
  const points = ids.flatMap((id, i) => {
    const { columns, rows } = details.runs[id].history;
    return rowsOf({ columns, rows }).map((row) => ({ ...row, name: names[i] }));
  });
  draw(element, () => ({ spec: { ...data.curve, layer }, datasets: { points } }));
}

function runView(id) {
  const run = details.runs[id];
  return [
    ...heading(id, run),
    ...comparePart(id),
    ...commandPart(run),
    ...resultPart(run),
    ...historyPart(run),
    ...(run.rows ? [h("h2", {}, "Rows"), rowTable(run.rows, "Measured rows")] : []),
    ...memoryPart(id),
    ...environmentPart(run),
    ...requestPart(run),
    ...otherResults(id),
  ];
}

