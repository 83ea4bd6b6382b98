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

// Menus that small screens have in place of rows of buttons.
for (const [id, target] of [["menu", "tools"], ["tray-menu", "tray-tools"]]) {
  const open = (isOpen) => { $(target).classList.toggle("open", isOpen); $(id).setAttribute("aria-expanded", String(isOpen)); };
  $(id).addEventListener("click", () => open(!$(target).classList.contains("open")));
  $(target).addEventListener("click", (event) => { if (event.target.closest("button")) open(false); });
  document.addEventListener("click", (event) => { if (!event.target.closest(`#${id}, #${target}`)) open(false); });
}

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
  const isField = event.target.matches("input:not([type=checkbox], [type=radio]), select, textarea");
  const command = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase();
  if (!isField && ((command === "a" && !document.querySelector("dialog[open]") && state.shown.length && !isColumns()) || (command === "z" && changes.length))) {
    if (command === "a") selectAll(); else undoSelection();
    event.preventDefault();
  }
  if (hasModifier(event) || document.querySelector("dialog[open]")) return;
  const inSearchField = event.target === $("text"), hasCards = state.shown.length > 0;
  if (isField) {
    if (event.key === "Escape" && inSearchField && hasCards) { focusCard(0); event.preventDefault(); }
    if (event.key === "/" && inSearchField && !$("text").value) event.preventDefault();
    if (event.key === "ArrowDown" && inSearchField && hasCards && !$("text").value) focusCard(0);
    return;
  }
  if (event.key === "/") { $("text").focus(); $("text").select(); }
  else if (event.key === "?") $("keys").showModal();
  else if (event.key === "f") toggleFilterPanel();
  else if (event.key === "l") openClasses();
  else if (event.key === "e") openExport();
  else if (event.key === "r") openQueue();
  else if (event.key === "p") openMap();
  else if (event.key === "M") searchSelection();
  else if (event.key.startsWith("Arrow") && hasCards && event.target === document.body) focusCard(0);
  else return;
  event.preventDefault();
});

const searchAddress = showingErrors(async () => {
  const parameters = new URLSearchParams(location.hash.slice(1)), text = parameters.get("q");
  if (leaveQueue()) return;
  for (const dialog of document.querySelectorAll("dialog[open]:not(#review)")) dialog.close();  // they are of the list before
  state.openIndex = -1;
  readFilterAddress(parameters);
  state.sort = parameters.get("sort") || "score";
  if (parameters.get("like")) {
    $("text").value = state.text = "";
    state.latest = likeRequest(parameters);
    writeAddress(true);
    await search(state.latest);
    return openAddressedQueue(parameters);
  }
  if (!text) return showStart();
  $("text").value = state.text = text;
  writeAddress(true);
  await searchText(text);
  await openAddressedQueue(parameters);
});
window.addEventListener("popstate", searchAddress);

// An answer that is still on its way is dropped. What the user types meanwhile stays.
function showStart() {
  state.turn += 1;
  cancelRanking();
  if ($("text").value.trim() === state.text) $("text").value = "";
  Object.assign(state, { text: "", latest: null });
  document.body.removeAttribute("aria-busy");
  showError(null);
  clearResults();
  showStatus("");
  $("empty").hidden = false;
  loadSample();
}

const loadInfo = showingErrors(async () => {
  const info = await call("api/info");
  state.hasCalibration = info.has_calibration;
  $("size").textContent = `${plural(info.images, "image")} in this collection.`;
  Object.assign(state, { mostListed: info.most_listed, mostSkipped: info.most_skipped });
  await loadSelections();
});

showTheme(remembered("theme", matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
showHistory(remembered("history", []));
$("text").focus();
loadInfo();
Promise.all([refreshTable(), showingErrors(loadReviews)()]).then(() => state.latest ?? searchAddress());  // class names may have commas, so they must be known first
