// Filters: columns with their values to choose from, the chips of the active filters, and SQL for those who want it.
// A filter is {kind, values} for a choice, {kind, from, to} for numbers and dates, or {kind, text} for other texts.

const FIRST_VALUES = 8;  // of a column, until the user opens all
const BUILT_IN_NAMES = { uri: "path", size: "size in bytes", added: "added to the store" };
const facets = { answer: null, expanded: new Set() };

function columnTitle(name) { return facets.answer?.columns.find((c) => c.name === name)?.own === false ? BUILT_IN_NAMES[name] ?? name : name; }

// SQL

function quoteColumn(name) { return `"${name.replaceAll('"', '""')}"`; }
function quoteText(text) { return `'${String(text).replaceAll("'", "''")}'`; }
function literal(value) { return typeof value === "string" ? quoteText(value) : String(value).toUpperCase(); }
function dayAfter(day) { const next = new Date(`${day}T00:00:00Z`); next.setUTCDate(next.getUTCDate() + 1); return next.toISOString().slice(0, 10); }

function filterSql(name, { kind, values, from, to, text }) {
  const column = quoteColumn(name), parts = [];
  switch (kind) {
    case "choice": {
      const known = values.filter((value) => value !== null);
      if (known.length) parts.push(`${column} IN (${known.map(literal).join(", ")})`);
      if (known.length < values.length) parts.push(`${column} IS NULL`);
      return parts.length > 1 ? `(${parts.join(" OR ")})` : parts[0];
    }
    case "number":
      if (from !== "") parts.push(`${column} >= ${Number(from)}`);
      if (to !== "") parts.push(`${column} <= ${Number(to)}`);
      return parts.join(" AND ");
    case "time":
      if (from) parts.push(`${column} >= ${quoteText(from)}`);
      if (to) parts.push(`${column} < ${quoteText(dayAfter(to))}`);
      return parts.join(" AND ");
    default:
      return `${column} ILIKE ${quoteText(`%${text.replace(/[!%_]/g, "!$&")}%`)} ESCAPE '!'`;
  }
}

// Return the API field where, or {} without a filter.
function filterField() {
  const sql = $("where").value.trim(), parts = [...state.filters].map(([name, filter]) => filterSql(name, filter));
  if (sql) parts.push(parts.length ? `(${sql})` : sql);
  return parts.length ? { where: parts.join(" AND ") } : {};
}

function hasFilter() { return state.filters.size > 0 || $("where").value.trim() !== ""; }

// The parts of the page's address that hold the filter.
function filterAddress() {
  const sql = $("where").value.trim();
  return { ...(sql ? { where: sql } : {}), ...(state.filters.size ? { filters: JSON.stringify([...state.filters]) } : {}) };
}

function readFilterAddress(parameters) {
  $("where").value = parameters.get("where") || "";
  let saved = [];
  try { saved = JSON.parse(parameters.get("filters") || "[]"); } catch { /* an address that was cut off */ }
  state.filters = new Map(Array.isArray(saved) ? saved.filter((pair) => pair?.[1]?.kind) : []);
  showFilters();
}

// Chips

function describeFilter(name, { kind, values, from, to, text }) {
  const title = columnTitle(name), join = (list) => (list.length > 3 ? `${list.slice(0, 3).join(", ")} and ${list.length - 3} more` : list.join(", "));
  if (kind === "choice") return `${title}: ${join(values.map(valueName))}`;
  if (kind === "text") return `${title} contains “${text}”`;
  if (from === "" || to === "") return from === "" ? `${title}: up to ${to}` : `${title}: from ${from}`;
  return `${title}: ${from} – ${to}`;
}

function valueName(value) { return value === null ? "no value" : value === "" ? "empty" : value === true ? "yes" : value === false ? "no" : String(value); }

function showFilters() {
  const sql = $("where").value.trim(), count = state.filters.size + (sql ? 1 : 0);
  const chips = [...state.filters].map(([name, filter]) => createChip(describeFilter(name, filter), () => setFilter(name, null)));
  if (sql) chips.push(createChip(`SQL: ${sql}`, () => { $("where").value = ""; applyFilters(); }));
  $("chip-list").replaceChildren(...chips);
  $("chips").hidden = !count;
  $("chips-clear").hidden = count < 2;
  $("filter").textContent = count ? `Filter (${count})` : "Filter";
}

function createChip(text, remove) {
  const item = element("li"), chip = element("button", "chip"), sign = element("span", "", "×");
  chip.type = "button";
  chip.title = "Remove this filter";
  sign.setAttribute("aria-hidden", "true");
  chip.append(element("span", "hidden-name", "Remove "), element("span", "text", text), sign);
  chip.addEventListener("click", () => { remove(); ($("chip-list").querySelector("button") ?? $("filter")).focus(); });
  item.append(chip);
  return item;
}

// Changes. Results of any kind are searched again with the new filter.

function setFilter(name, filter) {
  if (filter) state.filters.set(name, filter); else state.filters.delete(name);
  applyFilters();
}

const applyFilters = showingErrors(async () => {
  showFilters();
  showFacets();
  await searchAgain();
});

function clearFilters() {
  state.filters.clear();
  $("where").value = "";
  applyFilters();
}

// The panel

const loadFacets = showingErrors(async () => {
  $("facets-status").textContent = facets.answer ? "" : "Reading the columns …";
  facets.answer = await call("api/columns").finally(() => { $("facets-status").textContent = ""; });
  const { columns, images, complete } = facets.answer, own = columns.filter((c) => c.own);
  if (!complete) $("facets-status").textContent = `Counts and ranges are of the first ${plural(images, "image")}.`;
  $("columns-help").textContent = `Columns: ${(own.length ? own : columns).map((c) => c.name).join(", ")}`;
  showFilters();
  showFacets();
});

function showFacets() {
  if ($("filter-panel").hidden || !facets.answer) return;
  const focused = document.activeElement.closest("#facets [data-focus]")?.dataset.focus;
  $("facets").replaceChildren(...facets.answer.columns.filter(isUseful).map(createFacet));
  if (focused) [...document.querySelectorAll("#facets [data-focus]")].find((field) => field.dataset.focus === focused)?.focus();
}

// A column in which all images are alike is of no use as a filter, unless one is set.
function isUseful(column) {
  const { name, kind, values, lowest, highest, missing } = column;
  if (state.filters.has(name) || kind === "text") return true;
  return missing > 0 || (kind === "choice" ? values.length > 1 : lowest !== highest);
}

function createFacet(column) {
  const facet = element("fieldset", "facet"), filter = state.filters.get(column.name);
  facet.append(element("legend", "", columnTitle(column.name)));
  if (column.values.length) facet.append(...choiceControls(column, filter));
  else if (column.kind === "text") facet.append(textControl(column, filter));
  else facet.append(...rangeControls(column, filter));
  return facet;
}

function choiceControls({ name, values, missing }, filter) {
  const all = [...values, ...(missing ? [{ value: null, images: missing }] : [])], chosen = new Set(filter?.values ?? []);
  const few = facets.expanded.has(name) ? all : all.filter(({ value }, n) => n < FIRST_VALUES || chosen.has(value));
  const boxes = few.map(({ value, images }) => {
    const label = element("label", "choice"), box = Object.assign(element("input"), { type: "checkbox", checked: chosen.has(value) });
    box.dataset.focus = JSON.stringify([name, value]);
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(value); else chosen.delete(value);
      setFilter(name, chosen.size ? { kind: "choice", values: [...chosen] } : null);
    });
    label.append(box, element("span", "text", valueName(value)), element("span", "soft", images.toLocaleString("en")));
    return label;
  });
  if (few.length === all.length) return boxes;
  const more = element("button", "quiet", `Show all ${all.length}`);
  more.type = "button";
  more.addEventListener("click", () => { facets.expanded.add(name); showFacets(); });
  return [...boxes, more];
}

function rangeControls({ name, kind, lowest, highest }, filter) {
  const dated = kind === "time", shown = (value) => (value === null ? "" : dated ? String(value).slice(0, 10) : String(value));
  const fields = ["from", "to"].map((side) => {
    const field = Object.assign(element("input"), { type: dated ? "date" : "number", value: filter?.[side] ?? "" });
    if (!dated) Object.assign(field, { step: "any", placeholder: shown(side === "from" ? lowest : highest) });
    else Object.assign(field, { min: shown(lowest), max: shown(highest) });
    field.setAttribute("aria-label", `${columnTitle(name)}, ${side}`);
    field.dataset.focus = JSON.stringify([name, side]);
    field.addEventListener("change", () => {
      const [from, to] = fields.map((other) => other.value);
      setFilter(name, from || to ? { kind, from, to } : null);
    });
    return field;
  });
  const line = element("div", "range");
  line.append(fields[0], element("span", "soft", "to"), fields[1]);
  return dated ? [line, element("span", "soft", `${shown(lowest)} to ${shown(highest)}`)] : [line];
}

function textControl({ name }, filter) {
  const field = Object.assign(element("input"), { type: "search", value: filter?.text ?? "", placeholder: "contains …", maxLength: 500 });
  field.setAttribute("aria-label", `${columnTitle(name)} contains`);
  field.dataset.focus = JSON.stringify([name, "text"]);
  field.addEventListener("change", () => setFilter(name, field.value.trim() ? { kind: "text", text: field.value.trim() } : null));
  return field;
}

function toggleFilterPanel() {
  const hidden = $("filter-panel").hidden = !$("filter-panel").hidden;
  $("filter").setAttribute("aria-expanded", String(!hidden));
  if (hidden) return $("filter").focus();
  window.scrollTo(0, 0);
  showFacets();
  loadFacets().then(() => { if (!$("filter-panel").contains(document.activeElement)) $("filter-panel").querySelector("#facets input, #where")?.focus(); });
}

$("filter").addEventListener("click", toggleFilterPanel);
$("filter-close").addEventListener("click", toggleFilterPanel);
$("filter-panel").addEventListener("keydown", (event) => { if (event.key === "Escape") { toggleFilterPanel(); event.stopPropagation(); } });
$("where-form").addEventListener("submit", (event) => { event.preventDefault(); applyFilters(); });
$("chips-clear").addEventListener("click", () => { clearFilters(); $("filter").focus(); });
$("no-results-clear").addEventListener("click", clearFilters);
