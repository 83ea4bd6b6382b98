// Everything else: the field, the theme, keys, and what happens first.

$("form").addEventListener("submit", trying(async (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  await askText(text);
  if (document.activeElement === $("text")) focusCard(0);
}));
$("by-picture").addEventListener("click", () => $("file").click());
const askFile = trying(async (file) => {
  const where = $("where").value.trim();
  await ask({ kind: "upload", file, body: where ? { where } : {} }, `like ${file.name || "your picture"}`);
  focusCard(0);
});
$("file").addEventListener("change", () => { if ($("file").files[0]) askFile($("file").files[0]); $("file").value = ""; });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (file) askFile(file);
});
document.addEventListener("paste", (event) => {
  const file = event.clipboardData.files[0];
  if (file) askFile(file);
});
$("filter").addEventListener("click", () => {
  const hidden = $("where-bar").hidden = !$("where-bar").hidden;
  $("filter").setAttribute("aria-expanded", String(!hidden));
  if (!hidden) $("where").focus();
});
$("where").addEventListener("keydown", (event) => { if (event.key === "Enter" && $("text").value.trim()) $("form").requestSubmit(); });
$("keys-close").addEventListener("click", () => $("keys").close());
$("help").addEventListener("click", () => $("keys").showModal());

function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
}
$("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  remember("theme", theme);
  showTheme(theme);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape" && event.target === $("text") && shown().length) { focusCard(0); event.preventDefault(); }
  if (typing) {
    if (event.key === "/" && event.target === $("text") && !$("text").value) event.preventDefault();
    if (event.key === "ArrowDown" && event.target === $("text") && shown().length && !$("text").value) focusCard(0);
    return;
  }
  if (event.key === "/") { $("text").focus(); $("text").select(); }
  else if (event.key === "?") $("keys").showModal();
  else if (event.key === "l") openClasses();
  else if (event.key === "e") openExport();
  else if (event.key.startsWith("Arrow") && shown().length && event.target === document.body) focusCard(0);
  else return;
  event.preventDefault();
});

const fromAddress = trying(async () => {
  const parts = new URLSearchParams(location.hash.slice(1));
  const text = parts.get("q");
  if (!text) return;
  $("text").value = text;
  $("where").value = parts.get("where") || "";
  await askText(text);
});
window.addEventListener("popstate", fromAddress);

showTheme(remembered("theme", matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
showHistory(remembered("history", []));
$("text").focus();
trying(async () => {
  const info = await call("api/info");
  state.calibrated = info.has_calibration;
  $("size").textContent = `${info.images.toLocaleString("en")} images are searched.`;
  const names = Object.entries(info.columns).map(([name, type]) => `${name} (${type})`);
  $("where").title = `Columns: id, uri, width, height, size, added${names.length ? ", " + names.join(", ") : ""}`;
  $("columns").textContent = $("where").title;
  await showSelections();
})();
fromAddress();
