// Labels: the table of search quality per class, and what the labels say about the results for a class.

const table = { answer: null, sort: "average_precision", descending: false, timer: 0 };
const LABEL_MARKS = new Map([[true, ["✓", "correct"]], [false, ["✗", "incorrect"]], [null, ["?", "not labelled"]]]);
const MISTAKES = { "false-positives": "wrong", "false-negatives": "missed" };  // button ids, and the API's words

function isClassName(text) { return Boolean(table.answer?.classes.some((c) => c.name === text)); }

// Results of a class

// Return the badge of a card, in a list; no badge where the text names no class.
function labelBadge(result) {
  if (!state.labels) return [];
  const [sign, word] = LABEL_MARKS.get(result.relevant), badge = element("span", "label");
  badge.classList.toggle("right", result.relevant === true);
  badge.classList.toggle("wrong", result.relevant === false);
  badge.append(element("span", "", `label ${sign}`), element("span", "hidden-name", ` ${word}`));
  return [badge];
}

function labelFact(result) { return state.labels ? [["label", LABEL_MARKS.get(result.relevant).join(" ")]] : []; }
function formatPercent(value) { return value === null ? "–" : value.toFixed(1); }
function outOfTen(value) { return String(Math.round(value / 10)); }

function showLabelSummary(labels, only) {
  state.labels = labels;
  $("label-summary").hidden = !labels;
  if (!labels) return;
  const { class_name, group, images, average_precision, precision_at_10, missed, training_images, enough_data } = labels;
  const quality = average_precision === null
    ? "no labelled image shows it"
    : !enough_data ? `not enough data: only ${plural(images, "image")} labelled with it`
    : `AP@50 ${formatPercent(average_precision)} %, ${outOfTen(precision_at_10)} of the first 10 correct, ${plural(images, "image")} labelled with it`;
  $("label-quality").textContent = `${class_name}${group ? ` (${group})` : ""}: ${quality}${describeTraining(training_images)}`;
  $("false-negatives").textContent = `False negatives (${missed})`;
  $("false-negatives").disabled = !missed && only !== "missed";
  for (const [id, mistake] of Object.entries(MISTAKES)) $(id).setAttribute("aria-pressed", String(mistake === only));
}

// Show only one kind of mistake; a second press shows all results again.
const toggleMistakes = showingErrors(async (mistake) => {
  const { only, ...fields } = state.request.fields;
  await search({ ...state.request, fields: only === mistake ? fields : { ...fields, only: mistake } });
});
for (const [id, mistake] of Object.entries(MISTAKES)) $(id).addEventListener("click", () => toggleMistakes(mistake));

// The table

const refreshTable = showingErrors(async () => {
  clearTimeout(table.timer);
  table.answer = await call("api/classes");
  $("classes-open").hidden = table.answer.state === "no labels";
  if ($("classes-open").hidden) return;
  showTable();
  if ($("classes").open && table.answer.state === "measuring") table.timer = setTimeout(refreshTable, 700);
});

function showTable() {
  const { means } = table.answer;
  $("classes-status").textContent = describeMeasurement(table.answer);
  $("means").replaceChildren(...["base", "novel", "all"].filter((group) => group === "all" || means[group] !== null).map((group) => {
    const mean = element("div");
    mean.append(element("dt", "", `${group} (${countMeasured(group)})`), element("dd", "", formatPercent(means[group])));
    return mean;
  }));
  const focused = document.activeElement.closest("#class-rows tr")?.dataset.name;
  $("class-rows").replaceChildren(...filteredClasses().map(createRow));
  if (focused !== undefined) rowButtons().find((button) => button.textContent === focused)?.focus();
  for (const head of document.querySelectorAll("#classes th[data-by]")) {
    const sorted = head.dataset.by === table.sort;
    head.setAttribute("aria-sort", sorted ? (table.descending ? "descending" : "ascending") : "none");
  }
}

function describeTraining(count) {
  const used = `of this gallery ${count === 1 ? "was" : "were"} used in training`;
  return count ? `. ${plural(count, "image")} ${used}, so the results are better than on new images` : "";
}

function describeMeasurement({ state: status, progress, images, training_images: training, not_enough_data: tooFew }) {
  switch (status) {
    case "measuring": return `Measuring … ${Math.floor(progress * 100)} %`;
    case "failed": return "The measurement failed. See the service’s log.";
    default: return `${tooFew ? tooFew + " " : ""}mAP@50 in percent (number of classes in brackets), measured on ${plural(images, "labelled image")}${describeTraining(training)}`;
  }
}

function countMeasured(group) {
  return table.answer.classes.filter((c) => c.average_precision !== null && (group === "all" || c.group === group)).length;
}

// Return the classes that pass the filter, sorted. Classes without a value come last in both directions.
function filteredClasses() {
  const wanted = $("class-filter").value.trim().toLowerCase(), by = table.sort, sign = table.descending ? -1 : 1;
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  return table.answer.classes
    .filter((c) => c.name.toLowerCase().includes(wanted) || c.group === wanted)
    .sort((a, b) => (a[by] === null) - (b[by] === null) || (a[by] === null ? 0 : sign * compare(a[by], b[by])) || compare(a.name, b.name));
}

function createRow({ name, group, images, average_precision, precision_at_10, left_out }) {
  const row = element("tr"), head = element("th"), button = element("button", "", name), quality = element("td", "number");
  row.dataset.name = name;
  head.scope = "row";
  button.type = "button";
  head.append(button);
  if (average_precision !== null) {
    const track = element("span", "track"), bar = element("span");
    bar.style.width = `${average_precision}%`;
    track.append(bar);
    quality.append(track);
  }
  quality.append(element("span", "", formatPercent(average_precision)));
  if (left_out) quality.title = left_out;
  row.append(head, element("td", "", group ?? "–"), element("td", "number", images === null ? "–" : images.toLocaleString("en")));
  row.append(quality, element("td", "number wide", precision_at_10 === null ? "–" : outOfTen(precision_at_10)));
  return row;
}

function rowButtons() { return [...document.querySelectorAll("#class-rows button")]; }

function openClasses() {
  if ($("classes-open").hidden) return;
  $("classes").showModal();
  $("class-filter").select();
  refreshTable();
}

const searchClass = showingErrors(async (name) => {
  $("classes").close();
  $("text").value = name;
  await searchText(name);
  focusCard(0);
});

$("classes-open").addEventListener("click", openClasses);
$("classes-close").addEventListener("click", () => $("classes").close());
$("class-filter").addEventListener("input", showTable);
$("class-filter").addEventListener("keydown", (event) => {
  const first = rowButtons()[0];
  if (!first || !["Enter", "ArrowDown"].includes(event.key)) return;
  if (event.key === "Enter") searchClass(first.textContent); else first.focus();
  event.preventDefault();
});
$("class-rows").addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (row) searchClass(row.dataset.name);
});
$("class-rows").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const buttons = rowButtons(), next = buttons.indexOf(event.target) + step;
  (next < 0 ? $("class-filter") : buttons[Math.min(next, buttons.length - 1)]).focus();
  event.preventDefault();
});
for (const head of document.querySelectorAll("#classes th[data-by]")) {
  head.addEventListener("click", () => {
    const by = head.dataset.by;
    Object.assign(table, by === table.sort ? { descending: !table.descending } : { sort: by, descending: by === "images" });
    showTable();
  });
}
