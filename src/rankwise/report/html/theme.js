"use strict";
// Before the first paint: the colours chosen last time, if the browser lets us keep them.
document.documentElement.classList.add("scripted");
try {
  const kept = localStorage.getItem("rankwise-theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch { /* a file without storage: colours follow the system */ }
