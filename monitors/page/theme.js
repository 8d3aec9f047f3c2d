"use strict";
// Before anything is drawn: the theme that this browser was told last; without one, what the system prefers.
try {
  const theme = localStorage.getItem("stream-trainer-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* storage may be forbidden */ }
