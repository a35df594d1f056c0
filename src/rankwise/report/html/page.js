// What the page's scripts share, and the page's colours. Vega and DataTables are loaded before this
// script; the page's other scripts follow it.
const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// The page's data are gzip of JSON, as base64, in elements of their own. Each is unpacked once, when
// it is first needed.
const unpacked = new Map(); // id of the element -> promise of the value

function unpack(id) {
  if (!unpacked.has(id)) unpacked.set(id, unpackNow(document.getElementById(id)));
  return unpacked.get(id);
}

async function unpackNow(element) {
  const text = atob(element.textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  element.remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

const data = await unpack("data");

// Make an element. An attribute `onclick` is an event listener; empty children are left out.
function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== ""));
  return node;
}

// Colours -------------------------------------------------------------------------------------

const systemDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const systemTheme = systemDark.matches ? "dark" : "light";
  return (document.documentElement.dataset.theme ?? systemTheme) === "dark";
}

function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  try {
    if (name === "auto") localStorage.removeItem("rankwise-theme");
    else localStorage.setItem("rankwise-theme", name);
  } catch {
    // The browser keeps no storage for this file: the choice holds until the page is closed.
  }
  showTheme();
  redraw();
}

function showTheme() {
  const chosen = document.documentElement.dataset.theme ?? "auto";
  for (const button of all(".themes button")) {
    button.setAttribute("aria-pressed", String(button.dataset.theme === chosen));
  }
}

for (const button of all(".themes button")) {
  button.addEventListener("click", () => setTheme(button.dataset.theme));
}
systemDark.addEventListener("change", () => redraw());
showTheme();
