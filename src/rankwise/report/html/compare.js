// The comparison of two runs, at #compare/ID/ID: metrics, losses over each other, settings.

const runTitle = (id) => {
  const { cell, name } = details.runs[id];
  return `${cell.model} on ${cell.dataset}, ${name} (${id.slice(0, 8)})`;
};

// [name, first, second] of all names in two lists of [name, value] pairs.
function paired(first, second) {
  const [a, b] = [new Map(first), new Map(second)];
  return [...new Set([...a.keys(), ...b.keys()])].map((name) => [name, a.get(name), b.get(name)]);
}

function pairsTable(rows, caption, heads, cellsOf) {
  const head = h("tr", {}, heads.map((text) => h("th", { scope: "col" }, text)));
  const body = rows.map((row) => h("tr", {}, h("th", { scope: "row" }, row[0]), cellsOf(row)));
  return scrollable(caption, h("thead", {}, head), h("tbody", {}, body));
}

const valueText = (value) => {
  if (value === undefined) return "\u2013";
  return typeof value === "number" ? numberText(value) : String(value);
};

function numbersPart(runs) {
  const numbersOf = (run) => Object.entries({ ...run.metrics, ...run.cost }).map(withSpaces);
  const rows = paired(...runs.map(numbersOf));
  if (!rows.length) return [];
  const cellsOf = ([, first, second]) => {
    const areNumbers = typeof first === "number" && typeof second === "number";
    const difference = areNumbers ? second - first : undefined;
    const percent = areNumbers && first ? ` (${numberText((100 * difference) / Math.abs(first))} %)` : "";
    const sign = difference > 0 ? "+" : "";
    const text = areNumbers ? `${sign}${numberText(difference)}${percent}` : "\u2013";
    const texts = [valueText(first), valueText(second), text.replaceAll("-", "\u2212")];
    return texts.map((content) => h("td", { class: "number" }, content));
  };
  const caption = "Metrics, times and peaks; the difference is second less first";
  return [h("h2", {}, "Results"), pairsTable(rows, caption, ["", "first", "second", "difference"], cellsOf)];
}

// What differs first, then what both have in common, folded.
function settingsPart(title, pairsOf, runs) {
  const rows = paired(...runs.map(pairsOf)).filter(([name]) => name);
  const differing = rows.filter(([, first, second]) => first !== second);
  const same = rows.filter(([, first, second]) => first === second);
  const cellsOf = ([, first, second]) => [first, second].map((value) => h("td", { class: "wrap" }, valueText(value)));
  const heads = ["", "first", "second"];
  const common = pairsTable(same, `${title}, the same in both`, ["", "both"], (row) => cellsOf(row).slice(0, 1));
  return [
    h("h2", {}, title),
    differing.length
      ? pairsTable(differing, `${title} that differ`, heads, cellsOf)
      : h("p", {}, "Nothing differs."),
    h("details", { class: "data" }, h("summary", {}, `${same.length} the same in both`), common),
  ];
}

function settingsOf(run) {
  const { code, environment, ...settings } = run.request;
  return [...flat(settings), ...flat(run.selected ?? {}, "chosen")];
}

function compareView(ids) {
  const runs = ids.map((id) => details.runs[id]);
  const links = ids.map((id, i) => {
    const line = i ? "6 4" : "none";
    const colour = themed(data.looks[runs[i].cell.method] ?? "#000000");
    const sample = h("span", { class: "sample" });
    sample.style.borderTop = `3px ${line === "none" ? "solid" : "dashed"} ${colour}`;
    return h("li", {}, `${i ? "Second" : "First"}: `, sample, " ", h("a", { href: `#run/${id}` }, runTitle(id)));
  });
  const haveLosses = runs.every((run) => run.history?.columns.includes("selection_loss_nats"));
  const swap = h("a", { href: `#compare/${ids[1]}/${ids[0]}` }, "Swap them");
  return [
    h("p", { class: "back" }, h("a", { href: "#runs" }, "\u2190 All runs")),
    h("h1", {}, "Two runs beside each other"),
    h("ul", { class: "pair-names" }, links),
    h("p", {}, swap),
    ...numbersPart(runs),
    ...(haveLosses ? [h("h2", {}, "Loss by epoch"), h("div", { class: "drawing", "data-own": "" })] : []),
    ...settingsPart("Settings", settingsOf, runs),
    ...settingsPart("Environment", (run) => [...flat(run.request.environment, "lock"), ...flat(run.environment)], runs),
    ...settingsPart("Sources", (run) => flat(run.request.code), runs),
  ];
}

// Choosing two runs ------------------------------------------------------------------------------

const pairForm = find("form.pair");

// Names of the runs that pass the filters, for the two fields.
async function offerRuns() {
  await unpackDetails();
  const isOffered = ([, { measurement, cell }]) => {
    const isInGroup = passes("model", cell.model) && passes("dataset", cell.dataset);
    return measurement === "train" && isInGroup && passesCurve(cell.method, cell.rank);
  };
  const offered = Object.entries(details.runs).filter(isOffered);
  find("#run-names").replaceChildren(...offered.map(([id]) => h("option", { value: runTitle(id) })));
}

// The id of the run that a field names: by its title, or by the start of its id.
function namedRun(text) {
  const start = /\((\w+)\)\s*$/.exec(text)?.[1] ?? text.trim();
  if (start.length < 4) return undefined;
  const fitting = Object.keys(details.runs).filter((id) => id.startsWith(start));
  return fitting.length === 1 ? fitting[0] : undefined;
}

if (pairForm) {
  pairForm.addEventListener("focusin", offerRuns);
  pairForm.addEventListener("submit", async (event) => {
    event.preventDefault();
    await unpackDetails();
    const fields = ["first", "second"].map((name) => pairForm.elements[name].value);
    const ids = fields.map(namedRun);
    const wrong = ids.findIndex((id) => id === undefined);
    const message = wrong < 0 ? "" : `No single run is named \u201c${fields[wrong]}\u201d: choose one from the list.`;
    find("output", pairForm).textContent = message;
    if (wrong < 0) location.hash = addressOf(`compare/${ids[0]}/${ids[1]}`);
  });
}

// The link from a run's own view to its comparison with another run.
function comparePart(id) {
  if (details.runs[id].measurement !== "train") return [];
  const use = h("button", { type: "button" }, "Compare with another run");
  use.addEventListener("click", () => {
    pairForm.elements.first.value = runTitle(id);
    location.hash = addressOf("runs");
    setTimeout(() => pairForm.elements.second.focus(), 100); // after the report is shown again
  });
  return [h("p", {}, use)];
}
