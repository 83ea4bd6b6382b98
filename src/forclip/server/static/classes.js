// The classes of the labels, and what they say of a list.

const classes = { told: null, sort: "average_precision", down: false, waiting: 0 };
const LABEL_MARKS = new Map([[true, ["✓", "right"]], [false, ["✗", "wrong"]], [null, ["?", "not checked"]]]);

// Of a card: what the labels say of the image, where the text names a class.
function labelMark(r) {
  if (!state.labels) return [];
  const [sign, word] = LABEL_MARKS.get(r.relevant), made = make("span", "by-label");
  made.classList.toggle("right", r.relevant === true);
  made.classList.toggle("wrong", r.relevant === false);
  made.append(make("span", "", `label ${sign}`), make("span", "hidden-name", ` ${word}`));
  return [made];
}
function labelFact(r) { return state.labels ? [["label", LABEL_MARKS.get(r.relevant).join(" ")]] : []; }
function percentage(value) { return value === null ? "–" : value.toFixed(1); }
function outOfTen(value) { return String(Math.round(value / 10)); }
function isClass(text) { return Boolean(classes.told && classes.told.classes.some((c) => c.name === text)); }

function showLabels(found, only) {
  state.labels = found;
  $("by-labels").hidden = !found;
  if (!found) return;
  const worth = found.average_precision === null
    ? "no image here shows it"
    : `AP@50 ${percentage(found.average_precision)} %, ${outOfTen(found.precision_at_10)} of the first 10 right, ${found.images} ${found.images === 1 ? "shows" : "show"} it`;
  $("labels-told").textContent = `${found.class_name}${found.group ? ` (${found.group})` : ""}: ${worth}`;
  $("only-missed").textContent = `Only missed (${found.missed})`;
  $("only-missed").disabled = !found.missed && only !== "missed";
  for (const which of ["wrong", "missed"]) $(`only-${which}`).setAttribute("aria-pressed", String(which === only));
}

// Again for the whole list.
const askOnly = trying(async (which) => {
  const { only, ...body } = state.asked.body;
  const text = `for “${state.labels.class_name}”`;
  if (only === which) await ask({ kind: "search", body }, text);
  else await ask({ kind: "search", body: { ...body, only: which } }, `${which} ${text}`);
});
for (const which of ["wrong", "missed"]) $(`only-${which}`).addEventListener("click", () => askOnly(which));

function showClasses() {
  const { state: how, progress, images, means } = classes.told;
  $("classes-told").textContent = how === "measuring"
    ? `Measuring … ${Math.floor(progress * 100)} %`
    : how === "failed"
      ? "The classes could not be measured; the service’s log says why."
      : `mAP@50 in percent, over the ${images.toLocaleString("en")} images here that have labels`;
  $("means").replaceChildren(...["base", "novel", "all"].filter((g) => g === "all" || means[g] !== null).map((group) => {
    const made = make("div"), count = measuredIn(group);
    made.append(make("dt", "", `${group} (${count})`), make("dd", "", percentage(means[group])));
    return made;
  }));
  const focused = document.activeElement.closest("#class-rows tr")?.dataset.name;
  $("class-rows").replaceChildren(...chosenClasses().map(classRow));
  if (focused !== undefined) rowButtons().find((b) => b.textContent === focused)?.focus();
  for (const head of document.querySelectorAll("#classes th[data-by]")) {
    const sorted = head.dataset.by === classes.sort;
    head.setAttribute("aria-sort", sorted ? (classes.down ? "descending" : "ascending") : "none");
  }
}

function measuredIn(group) {
  return classes.told.classes.filter((c) => c.average_precision !== null && (group === "all" || c.group === group)).length;
}

// Those that the filter leaves, sorted; what has no value comes last either way.
function chosenClasses() {
  const wanted = $("class-filter").value.trim().toLowerCase(), by = classes.sort, sign = classes.down ? -1 : 1;
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  return classes.told.classes
    .filter((c) => c.name.toLowerCase().includes(wanted) || c.group === wanted)
    .sort((a, b) => (a[by] === null) - (b[by] === null) || (a[by] === null ? 0 : sign * compare(a[by], b[by])) || compare(a.name, b.name));
}

function classRow(c) {
  const made = make("tr"), name = make("th"), worth = make("td", "number"), track = make("span", "track");
  made.dataset.name = c.name;
  name.scope = "row";
  const button = make("button", "", c.name);
  button.type = "button";
  name.append(button);
  if (c.average_precision !== null) {
    const bar = make("span");
    bar.style.width = `${c.average_precision}%`;
    track.append(bar);
    worth.append(track);
  }
  worth.append(make("span", "", percentage(c.average_precision)));
  if (c.left_out) worth.title = c.left_out;
  made.append(name, make("td", "", c.group ?? "–"), make("td", "number", c.images === null ? "–" : c.images.toLocaleString("en")));
  made.append(worth, make("td", "number wide", c.precision_at_10 === null ? "–" : outOfTen(c.precision_at_10)));
  return made;
}

function rowButtons() { return [...document.querySelectorAll("#class-rows button")]; }

const refreshClasses = trying(async () => {
  clearTimeout(classes.waiting);
  classes.told = await call("api/classes");
  $("classes-open").hidden = classes.told.state === "no labels";
  if ($("classes-open").hidden) return;
  showClasses();
  if ($("classes").open && classes.told.state === "measuring") classes.waiting = setTimeout(refreshClasses, 700);
});

function openClasses() {
  if ($("classes-open").hidden) return;
  $("classes").showModal();
  $("class-filter").select();
  refreshClasses();
}

const searchClass = trying(async (name) => {
  $("classes").close();
  $("text").value = name;
  await askText(name);
  focusCard(0);
});

$("classes-open").addEventListener("click", openClasses);
$("classes-close").addEventListener("click", () => $("classes").close());
$("class-filter").addEventListener("input", showClasses);
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
  const all = rowButtons(), next = all.indexOf(event.target) + step;
  (next < 0 ? $("class-filter") : all[Math.min(next, all.length - 1)]).focus();
  event.preventDefault();
});
for (const head of document.querySelectorAll("#classes th[data-by]")) {
  head.addEventListener("click", () => {
    const by = head.dataset.by;
    Object.assign(classes, by === classes.sort ? { down: !classes.down } : { sort: by, down: by === "images" });
    showClasses();
  });
}
refreshClasses();
