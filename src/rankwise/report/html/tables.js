// Tables: sorted, filtered and paged by DataTables; the tools above them are in the page.
for (const table of all("table.sheet")) {
  const rows = table.tBodies[0].rows.length;
  const made = new window.DataTable(table, {
    paging: rows > 30, pageLength: 25, lengthChange: false, autoWidth: false, order: [], searching: true, info: rows > 10,
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null, bottom: null },
    columnDefs: [{ targets: "_all", className: "" }],
    language: { zeroRecords: "No row has this.", info: "_TOTAL_ rows", infoFiltered: "of _MAX_", infoEmpty: "no rows" },
  });
  const box = table.closest(".scroll"), tools = box.previousElementSibling;
  find("input[type=search]", tools).addEventListener("input", (event) => made.search(event.target.value).draw());
  for (const button of all(".chips button", tools)) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const one of all(".chips button", tools)) one.setAttribute("aria-pressed", String(on && one === button));
      const exact = on ? `^${button.dataset.value.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}$` : "";
      made.column(Number(find(".chips", tools).dataset.column)).search(exact, { regex: true, smart: false }).draw();
    });
  }
  find(".columns", tools)?.addEventListener("click", (event) => {
    const on = table.classList.toggle("all");
    event.target.setAttribute("aria-pressed", String(on));
  });
  box.after(foot(made, rows));
}

function foot(made, rows) {
  const info = h("span", { "aria-live": "polite" });
  const back = h("button", { type: "button", onclick: () => made.page("previous").draw("page") }, "Previous");
  const on = h("button", { type: "button", onclick: () => made.page("next").draw("page") }, "Next");
  const node = h("div", { class: "dt-foot" }, info, rows > 30 ? h("span", {}, back, " ", on) : null);
  const say = () => {
    const page = made.page.info();
    const shown = page.recordsDisplay === page.recordsTotal ? `${page.recordsTotal} row${page.recordsTotal === 1 ? "" : "s"}` : `${page.recordsDisplay} of ${page.recordsTotal} rows`;
    info.textContent = page.pages > 1 ? `${page.start + 1} to ${page.end} of ${shown}` : shown;
    [back.disabled, on.disabled] = [page.page === 0, page.page >= page.pages - 1];
  };
  made.on("draw", say);
  say();
  return node;
}
