// The grid of images.

// count: how many were asked for.
function append(results, count) {
  state.whole = results.length < count;
  const first = state.results.length;
  state.results.push(...results);
  $("grid").append(...results.map((r, k) => card(r, first + k)));
  $("grid").hidden = !state.results.length;
}

function worth(r) { return r.probability === null ? r.score.toFixed(3) : `${percent(r.probability)} %`; }
function percent(p) { return p > 0 && p < 0.01 ? "< 1" : String(Math.round(p * 100)); }

function pictureOf(r, source, into) {
  const wide = r.width >= r.height;
  into.style.aspectRatio = r.width && r.height ? `${r.width} / ${r.height}` : "1";
  into.style.width = wide ? "100%" : "auto";
  into.style.height = wide ? "auto" : "100%";
  const image = make("img");
  image.loading = "lazy";
  image.decoding = "async";
  image.alt = "";
  image.draggable = false;
  image.src = source;
  into.replaceChildren(image);
  if (r.box) into.append(placeOf(r.box));
  return image;
}

function placeOf(box) {
  const place = make("div", "place");
  putAt(place, box);
  return place;
}

function putAt(element, box) {
  element.style.left = `${box.x0 * 100}%`;
  element.style.top = `${box.y0 * 100}%`;
  element.style.width = `${(box.x1 - box.x0) * 100}%`;
  element.style.height = `${(box.y1 - box.y0) * 100}%`;
}

function card(r, k) {
  const made = make("div", "card");
  made.setAttribute("role", "option");
  made.id = `card-${k}`;
  made.tabIndex = k === 0 ? 0 : -1;
  made.dataset.place = k;
  const frame = make("div", "frame"), picture = make("div", "picture"), line = make("div", "line");
  pictureOf(r, `api/thumbnail/${r.key}`, picture).addEventListener("error", () => {
    frame.replaceChildren(make("span", "", "can’t be shown"));
  });
  frame.append(picture, ...labelMark(r));
  const sure = r.probability === null ? "" : `, score ${r.score.toFixed(3)}`;
  line.append(make("span", "rank", `${r.rank}`), make("span", "", worth(r)), make("span", "hidden-name", `, ${r.name}${sure}`));
  made.title = `${r.name}\nscore ${r.score.toFixed(3)}`;
  made.append(frame, line, make("span", "pick"), ...sayings());
  mark(made, r);
  return made;
}

function mark(element, r) {
  element.setAttribute("aria-selected", String(state.picked.has(r.key)));
  markVerdict(element, r);
}

function cards() { return [...document.querySelectorAll("#grid > .card, #side .card")]; }
function shown() { return cards().filter((c) => !c.hidden); }

function focusCard(k) {
  const all = shown();
  if (!all.length) return;
  const target = all[Math.max(0, Math.min(all.length - 1, k))];
  for (const c of cards()) c.tabIndex = -1;
  target.tabIndex = 0;
  target.focus();
  target.scrollIntoView({ block: "nearest" });
  if (all.length - k < 12) more();
}

function columns() {
  const all = shown();
  const first = all.length ? all[0].offsetTop : 0;
  return Math.max(1, all.findIndex((c) => c.offsetTop !== first) === -1 ? all.length : all.findIndex((c) => c.offsetTop !== first));
}

function clicked(event) {
  const found = event.target.closest(".card");
  if (!found) return;
  const r = state.results[found.dataset.place];
  for (const c of cards()) c.tabIndex = -1;
  found.tabIndex = 0;
  const said = event.target.closest(".say");
  if (!event.target.closest(".pick") && !said) return look(Number(found.dataset.place));
  found.focus();
  if (said) say(r, said.classList.contains("right")); else pick(r);
}

// neighbour: the place among those shown to go to from one, by an arrow's key.
const pressed = (neighbour) => (event) => {
  const found = event.target.closest(".card");
  if (!found || event.ctrlKey || event.metaKey || event.altKey) return;
  const r = state.results[found.dataset.place];
  if (event.key.startsWith("Arrow")) {
    const next = neighbour(shown().indexOf(found), event.key);
    if (next >= 0) focusCard(Math.min(next, shown().length - 1));
  } else if (event.key in SAYING) say(r, SAYING[event.key]);
  else if (event.key === "Home") focusCard(0);
  else if (event.key === "End") focusCard(shown().length - 1);
  else if (event.key === " ") pick(r);
  else if (event.key === "Enter") look(Number(found.dataset.place));
  else if (event.key === "m") alike(r, null);
  else return;
  event.preventDefault();
  event.stopPropagation();
};

$("grid").addEventListener("click", clicked);
$("grid").addEventListener("keydown", pressed((k, key) => {
  return k + { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[key];
}));
