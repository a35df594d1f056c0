// Tables. DataTables sorts, filters and pages them; the controls above each table are in the page. A
// table's rows are unpacked when it comes near the window, or when one of its controls is used.
const tables = new Map(); // element -> promise of its DataTable
const filterKeys = new Map(); // element -> what the filters look at, of each row
const searches = new Map(); // element -> words that are searched, and the columns that are shown

// Show a row if it passes the page's filters. A comparison passes if both of its curves do.
window.DataTable.ext.search.push((settings, texts, row) => {
  if (!hasWords(settings.nTable, texts)) return false;
  const keys = filterKeys.get(settings.nTable);
  const valuesOf = (key) => (keys[key] ?? []).map((column) => column[row]);
  if (!valuesOf("model").every((value) => passes("model", value))) return false;
  if (!valuesOf("dataset").every((value) => passes("dataset", value))) return false;
  const ranks = valuesOf("rank");
  return valuesOf("method").every((method, i) => passesCurve(method, ranks[i]));
});

// Whether the shown columns of a row have every word that is searched. Hidden columns do not count:
// nobody would see why a row with a setting such as `full` in one of them is there.
function hasWords(table, texts) {
  const { words, columns } = searches.get(table) ?? { words: [], columns: [] };
  const shown = columns.map((column) => texts[column]).join(" ").toLowerCase();
  return words.every((word) => shown.includes(word));
}

function searchTable(table, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const showsAll = table.classList.contains("all");
  const columns = [];
  all("thead th", table).forEach((head, column) => {
    if (showsAll || !head.classList.contains("more")) columns.push(column);
  });
  searches.set(table, { words, columns });
}

// A cell is its text, or a list of text, what sorts it, and its exact value.
const parts = (cell) => (Array.isArray(cell) ? cell : [cell]);

function cellValue(cell, type) {
  const [text, order] = parts(cell);
  if (type === "display" || type === "filter" || order === undefined || order === "") return text;
  return Number.isNaN(Number(order)) ? order : Number(order);
}

function setUpTable(table) {
  if (!tables.has(table)) tables.set(table, makeTable(table));
  return tables.get(table);
}

async function makeTable(table) {
  nearTables.unobserve(table);
  const { rows, keys } = await unpack(`${table.id}-data`);
  filterKeys.set(table, keys);
  const heads = all("thead th", table);
  table.tBodies[0].replaceChildren(); // else DataTables reads attributes of the page's own rows
  const dataTable = new window.DataTable(table, {
    data: rows,
    paging: rows.length > 30,
    pageLength: 25,
    lengthChange: false,
    autoWidth: false,
    order: [],
    searching: true,
    info: rows.length > 10,
    // The page has its own controls and its own foot.
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null, bottom: null },
    columnDefs: [{ targets: "_all", className: "", render: cellValue, createdCell: styleCell(heads) }],
    language: { zeroRecords: "No row matches.", info: "_TOTAL_ rows", infoFiltered: "of _MAX_", infoEmpty: "no rows" },
  });
  table.closest(".scroll").after(tableFoot(dataTable, rows.length));
  table.dataset.ready = "";
  return dataTable;
}

// Classes of a cell as in the page's own rows, and its exact value.
function styleCell(heads) {
  return (element, shown, row, rowIndex, column) => {
    const [text, , exact] = parts(row[column]);
    const head = heads[column];
    if (head.classList.contains("number")) element.classList.add("number");
    else if (text.length > 60 && text[0] !== "<") element.classList.add("wrap");
    if (head.classList.contains("more")) element.classList.add("more");
    if (exact) element.title = exact;
  };
}

// Show only the rows with the button's value, or all rows again.
function toggleChip(button, dataTable) {
  const turnOn = button.getAttribute("aria-pressed") !== "true";
  const chips = button.closest(".chips");
  for (const other of all("button", chips)) {
    other.setAttribute("aria-pressed", String(turnOn && other === button));
  }
  const literal = button.dataset.value.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const column = dataTable.column(Number(chips.dataset.column));
  column.search(turnOn ? `^${literal}$` : "", { regex: true, smart: false }).draw();
}

// The number of rows shown, and buttons to turn the page.
function tableFoot(dataTable, rowCount) {
  const info = h("span", { "aria-live": "polite" });
  const turn = (where) => () => dataTable.page(where).draw("page");
  const previous = h("button", { type: "button", onclick: turn("previous") }, "Previous");
  const next = h("button", { type: "button", onclick: turn("next") }, "Next");
  const buttons = rowCount > 30 ? h("span", {}, previous, " ", next) : null;
  const number = (count) => count.toLocaleString("en-US");
  const update = () => {
    const page = dataTable.page.info();
    const total = page.recordsTotal;
    const isFiltered = page.recordsDisplay !== total;
    const everything = `${number(total)} row${total === 1 ? "" : "s"}`;
    const rows = isFiltered ? `${number(page.recordsDisplay)} of ${number(total)} rows` : everything;
    info.textContent = page.pages > 1 ? `${number(page.start + 1)} to ${number(page.end)} of ${rows}` : rows;
    previous.disabled = page.page === 0;
    next.disabled = page.page >= page.pages - 1;
  };
  dataTable.on("draw", update);
  update();
  return h("div", { class: "dt-foot" }, info, buttons);
}

const nearTables = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) setUpTable(target);
  },
  { rootMargin: "900px" },
);

for (const table of all("table.sheet")) {
  nearTables.observe(table);
  const tools = table.closest(".scroll").previousElementSibling;
  const field = find("input[type=search]", tools);
  const search = async () => {
    const dataTable = await setUpTable(table);
    searchTable(table, field.value);
    dataTable.draw();
  };
  field.addEventListener("input", search);
  for (const button of all(".chips button", tools)) {
    button.addEventListener("click", async () => toggleChip(button, await setUpTable(table)));
  }
  find(".columns", tools)?.addEventListener("click", (event) => {
    const showsAll = table.classList.toggle("all");
    event.target.setAttribute("aria-pressed", String(showsAll));
    if (field.value) search();
  });
}
// A page of rows, not the first one, may be shown: filtering leads back to the first.
filterListeners.push(() => {
  for (const table of tables.values()) table.then((dataTable) => dataTable.draw());
});
