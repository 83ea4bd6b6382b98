// Start of the page: the search field, the theme, page-wide keys, the address, and the first requests. Runs last.

$("form").addEventListener("submit", showingErrors(async (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  await searchText(text);
  if (document.activeElement === $("text")) focusCard(0);
}));

// An image to search with: chosen, dropped or pasted.
$("by-image").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { if ($("file").files[0]) searchFile($("file").files[0]); $("file").value = ""; });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) searchFile(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => { if (event.clipboardData.files[0]) searchFile(event.clipboardData.files[0]); });

$("filter").addEventListener("click", () => {
  const hidden = $("filter-bar").hidden = !$("filter-bar").hidden;
  $("filter").setAttribute("aria-expanded", String(!hidden));
  if (!hidden) $("where").focus();
});
$("where").addEventListener("keydown", (event) => { if (event.key === "Enter" && $("text").value.trim()) $("form").requestSubmit(); });
$("keys-close").addEventListener("click", () => $("keys").close());
$("help").addEventListener("click", () => $("keys").showModal());

function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").title = `Switch to ${theme === "dark" ? "light" : "dark"} mode`;
  $("theme").setAttribute("aria-label", $("theme").title);
}
$("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  remember("theme", theme);
  showTheme(theme);
});

document.addEventListener("keydown", (event) => {
  if (hasModifier(event) || document.querySelector("dialog[open]")) return;
  const inSearchField = event.target === $("text"), hasCards = visibleCards().length > 0;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape" && inSearchField && hasCards) { focusCard(0); event.preventDefault(); }
    if (event.key === "/" && inSearchField && !$("text").value) event.preventDefault();
    if (event.key === "ArrowDown" && inSearchField && hasCards && !$("text").value) focusCard(0);
    return;
  }
  if (event.key === "/") { $("text").focus(); $("text").select(); }
  else if (event.key === "?") $("keys").showModal();
  else if (event.key === "l") openClasses();
  else if (event.key === "e") openExport();
  else if (event.key.startsWith("Arrow") && hasCards && event.target === document.body) focusCard(0);
  else return;
  event.preventDefault();
});

const searchAddress = showingErrors(async () => {
  const parameters = new URLSearchParams(location.hash.slice(1)), text = parameters.get("q");
  if (!text) return;
  $("text").value = text;
  $("where").value = parameters.get("where") || "";
  await searchText(text);
});
window.addEventListener("popstate", searchAddress);

const loadInfo = showingErrors(async () => {
  const info = await call("api/info");
  state.hasCalibration = info.has_calibration;
  $("size").textContent = `${plural(info.images, "image")} in this collection.`;
  const columns = Object.entries(info.columns).map(([name, type]) => `${name} (${type})`);
  $("columns-help").textContent = $("where").title = `Columns: ${["id, uri, width, height, size, added", ...columns].join(", ")}`;
  await loadSelections();
});

showTheme(remembered("theme", matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
showHistory(remembered("history", []));
$("text").focus();
loadInfo();
refreshTable().then(searchAddress);  // class names may have commas, so they must be known first
