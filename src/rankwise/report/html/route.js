// Navigation: the address names a place of the report, a run, or two runs to compare.
const pageTitle = document.title;
const article = { run: document.getElementById("run"), compare: document.getElementById("compare") };
let scrollPosition = 0; // of the report, while something else is shown

async function route() {
  readFilters();
  const [kind, ...ids] = readAddress().place.split("/");
  const isArticle = kind in article && ids.length === (kind === "run" ? 1 : 2);
  if (isArticle) await unpackDetails();
  const shown = isArticle && ids.every((id) => id in details.runs) ? kind : null;
  const report = document.getElementById("report");
  const fromReport = !report.hidden;
  if (shown && fromReport) scrollPosition = scrollY;
  report.hidden = shown !== null;
  for (const [name, element] of Object.entries(article)) element.hidden = name !== shown;
  document.title = shown ? `${ids.map((id) => details.runs[id].name).join(" and ")} | ${pageTitle}` : pageTitle;
  if (shown) showArticle(article[shown], ids);
  else returnToReport(fromReport);
}

function showArticle(element, ids) {
  element.replaceChildren(...(ids.length === 1 ? runView(ids[0]) : compareView(ids)));
  const place = find("[data-own]", element);
  if (place) drawLosses(place, ids);
  scrollTo({ top: 0, behavior: "instant" });
  element.focus({ preventScroll: true });
}

// A browser finds the place itself, unless filters follow it in the address or the report was hidden.
function returnToReport(fromReport) {
  const { place, query } = readAddress();
  const target = place && document.getElementById(place);
  if (target && (!fromReport || query.size)) target.scrollIntoView({ behavior: "instant" });
  else if (!target && !fromReport) scrollTo({ top: scrollPosition, behavior: "instant" });
}

addEventListener("hashchange", route);
await route();

// On a narrow window the contents are folded; on paper everything is open.
if (!matchMedia("(min-width: 68rem)").matches) find(".contents details").open = false;
addEventListener("beforeprint", () => {
  for (const element of all("details")) element.open = true;
});
document.documentElement.dataset.ready = ""; // tests wait for it
// Runs are unpacked when nothing else is to do, so that tooltips can show their commands.
setTimeout(unpackDetails, 1500);
