// What the page's scripts share, and its colours. Vega and DataTables come before it; charts, tables and runs after.
const data = JSON.parse(document.getElementById("data").textContent);
const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== ""));
  return node;
}

// Colours -------------------------------------------------------------------------------------------------------------

const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  try {
    if (name === "auto") localStorage.removeItem("rankwise-theme");
    else localStorage.setItem("rankwise-theme", name);
  } catch { /* a file without storage */ }
  showTheme();
  redraw();
}

function showTheme() {
  const now = document.documentElement.dataset.theme ?? "auto";
  for (const button of all(".themes button")) button.setAttribute("aria-pressed", String(button.dataset.theme === now));
}

for (const button of all(".themes button")) button.addEventListener("click", () => setTheme(button.dataset.theme));
system.addEventListener("change", () => redraw());
showTheme();
