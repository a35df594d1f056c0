"use strict";
// Runs before the page is first painted: set the colours that were chosen last time.
document.documentElement.classList.add("scripted");
try {
  const chosen = localStorage.getItem("rankwise-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // The browser keeps no storage for this file: the colours follow the system.
}
