// Tables. DataTables sorts, filters and pages them; the controls above each table are in the page.
for (const table of all("table.sheet")) setUpTable(table);

function setUpTable(table) {
  const rowCount = table.tBodies[0].rows.length;
  const dataTable = new window.DataTable(table, {
    paging: rowCount > 30,
    pageLength: 25,
    lengthChange: false,
    autoWidth: false,
    order: [],
    searching: true,
    info: rowCount > 10,
    // The page has its own controls and its own foot.
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null, bottom: null },
    columnDefs: [{ targets: "_all", className: "" }],
    language: { zeroRecords: "No row matches.", info: "_TOTAL_ rows", infoFiltered: "of _MAX_", infoEmpty: "no rows" },
  });
  const box = table.closest(".scroll");
  const tools = box.previousElementSibling;
  find("input[type=search]", tools).addEventListener("input", (event) => {
    dataTable.search(event.target.value).draw();
  });
  for (const button of all(".chips button", tools)) {
    button.addEventListener("click", () => toggleChip(button, dataTable));
  }
  find(".columns", tools)?.addEventListener("click", (event) => {
    const showsAll = table.classList.toggle("all");
    event.target.setAttribute("aria-pressed", String(showsAll));
  });
  box.after(tableFoot(dataTable, rowCount));
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
  const update = () => {
    const page = dataTable.page.info();
    const total = page.recordsTotal;
    const isFiltered = page.recordsDisplay !== total;
    const rows = isFiltered ? `${page.recordsDisplay} of ${total} rows` : `${total} row${total === 1 ? "" : "s"}`;
    info.textContent = page.pages > 1 ? `${page.start + 1} to ${page.end} of ${rows}` : rows;
    previous.disabled = page.page === 0;
    next.disabled = page.page >= page.pages - 1;
  };
  dataTable.on("draw", update);
  update();
  return h("div", { class: "dt-foot" }, info, buttons);
}
