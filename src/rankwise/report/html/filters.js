// The page's filters: model, dataset, family of methods, rank. They act on all charts and tables, and
// are kept in the address as `#place?model=a&rank=8`. A facet without a chosen value lets all pass.
const chosen = new Map(); // facet -> set of chosen values
const filterListeners = []; // called after each change

const rankText = (rank) => (Number(rank) ? String(Number(rank)) : "none");

// A value that is not known passes, so that rows which are about no single curve stay.
function passes(facet, value) {
  const values = chosen.get(facet);
  return !values || value === undefined || value === null || values.has(String(value));
}

function passesCurve(method, rank) {
  const isKnownRank = rank !== undefined && rank !== null;
  return passes("family", data.families[method]) && passes("rank", isKnownRank ? rankText(rank) : null);
}

// The place that the address names, and the filters in it.
function readAddress() {
  const [place, query = ""] = location.hash.slice(1).split("?");
  return { place, query: new URLSearchParams(query) };
}

function addressOf(place) {
  const query = new URLSearchParams();
  for (const [facet, values] of chosen) for (const value of values) query.append(facet, value);
  return query.size ? `#${place}?${query}` : `#${place}`;
}

// Take the filters from the address; values that the study does not have are left out.
function readFilters() {
  const before = addressOf("");
  const { query } = readAddress();
  chosen.clear();
  for (const { key, values } of data.facets) {
    const known = query.getAll(key).filter((value) => values.includes(value));
    if (known.length) chosen.set(key, new Set(known));
  }
  if (addressOf("") !== before) filtersChanged();
}

function toggleFilter(facet, value) {
  const values = chosen.get(facet) ?? new Set();
  if (!values.delete(value)) values.add(value);
  if (values.size) chosen.set(facet, values);
  else chosen.delete(facet);
  history.replaceState(null, "", addressOf(readAddress().place));
  filtersChanged();
}

function clearFilters() {
  chosen.clear();
  history.replaceState(null, "", addressOf(readAddress().place));
  filtersChanged();
}

function filtersChanged() {
  showFilters();
  for (const listener of filterListeners) listener();
}

function showFilters() {
  for (const button of all("#filters [data-facet]")) {
    const isChosen = chosen.get(button.dataset.facet)?.has(button.dataset.value) ?? false;
    button.setAttribute("aria-pressed", String(isChosen));
  }
  const text = remainingText();
  const output = find("#filters output");
  if (output) output.textContent = text;
  const inBar = find(".remaining span");
  if (inBar) inBar.textContent = chosen.size ? `: ${text}` : "";
  for (const button of all(".clear")) button.hidden = !chosen.size;
}

function remainingText() {
  let [remaining, total] = [0, 0];
  for (const [model, dataset, method, rank, count] of data.counts) {
    total += count;
    if (passes("model", model) && passes("dataset", dataset) && passesCurve(method, rank)) remaining += count;
  }
  const number = (count) => count.toLocaleString("en-US");
  return chosen.size ? `${number(remaining)} of ${number(total)} ${data.counted}` : `all ${number(total)} ${data.counted}`;
}

for (const button of all("#filters [data-facet]")) {
  button.addEventListener("click", () => toggleFilter(button.dataset.facet, button.dataset.value));
}
for (const button of all(".clear")) button.addEventListener("click", clearFilters);
find("#filters")?.addEventListener("submit", (event) => event.preventDefault());

// A link inside of the page keeps the filters.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='#']");
  if (!link || !chosen.size || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  location.hash = addressOf(link.getAttribute("href").slice(1));
});
showFilters();
