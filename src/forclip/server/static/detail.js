// The closer look: one image with its facts, the heatmap, the regions of all vectors, and a region drawn by hand.

const HEAT_COLOUR = [230, 0, 126], HEAT_ALPHA = 0.8;  // of the strongest position
const MIN_SIDE = 0.02, STEP = 0.02;                    // of a drawn region, as fractions of the image
const MOST_REGIONS = 50;                               // outlined: with tiles an image may have hundreds
const DRAW_BY_KEYS = "Arrow keys move it, Shift + arrow keys resize it, Enter searches for similar images, Esc removes it.";
const DRAW_BY_TOUCH = "Draw over the image with a finger to change it, then press More like this region.";
const look = { heatmap: false, regions: false, answer: null, turn: 0 };  // what is switched on, and the service's answer

// index: of a result.
function openDetail(index) {
  const result = state.results[index];
  if (!result) return;
  state.openIndex = index;
  $("detail-name").textContent = $("detail-name").title = `${result.rank}. ${result.name}`;
  const picture = $("detail-picture");
  hideProblem();
  const image = showImage(result, `api/image/${result.key}`, picture);
  image.alt = result.name;
  image.addEventListener("error", () => showProblem(result, image), { once: true });
  $("facts").replaceChildren(...factLines(facts(result)));
  setDrawnRegion(null);
  // A button that is disabled would lose the focus.
  $("previous").setAttribute("aria-disabled", String(visibleNeighbour(-1) < 0));
  $("next").setAttribute("aria-disabled", String(visibleNeighbour(1) < 0));
  showDetailSelected();
  showDetailVerdict();
  loadDetails(result);
  loadRegions();
  if (!$("detail").open) $("detail").showModal();
  fitPicture(result);
  keepDetailFocus();
}

function facts(result) {
  const probability = result.probability === null ? [] : [["probability", `${percent(result.probability)} %`]];
  const format = (value) => (value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));
  const metadata = Object.entries(result.metadata).map(([name, value]) => [name, format(value)]);
  return [["score", result.score.toFixed(4)], ...probability, ...labelFact(result), ["size", `${result.width} × ${result.height}`], ...metadata];
}

// Return the index of the visible result before (-1) or after (1) the open one; -1 if there is none.
function visibleNeighbour(step) {
  return state.shown[state.shown.indexOf(state.openIndex) + step] ?? -1;
}

function showDetailSelected() {
  const selected = state.selectedKeys.has(state.results[state.openIndex]?.key);
  $("detail-select").setAttribute("aria-pressed", String(selected));
  $("detail-select").textContent = selected ? "In selection" : "Add to selection";
}

// Heatmap and regions of vectors

// In columns each result has its own request.
function openRequest() { return state.results[state.openIndex]?.request ?? state.request; }
function hasText() { return openRequest()?.kind === "search"; }

// Ask the service only while the heatmap or the regions are switched on, because the model takes its time.
async function loadRegions() {
  const turn = ++look.turn;
  look.answer = null;
  $("heatmap").hidden = !hasText();
  drawRegions();
  if (!(look.heatmap && hasText()) && !look.regions) return;
  $("region-status").textContent = "Loading …";
  try {
    const { any_of, all_of, where } = requestFields(openRequest());
    const answer = await call("api/look", { json: { key: state.results[state.openIndex].key, any_of, all_of, where } });
    if (turn !== look.turn) return;
    look.answer = answer;
    drawRegions();
  } catch (error) {
    if (turn === look.turn) $("region-status").textContent = error.message;
  }
}

function drawRegions() {
  const { answer } = look, heatmap = look.heatmap && answer?.heatmap, regions = look.regions && answer;
  $("heatmap").setAttribute("aria-pressed", String(look.heatmap));
  $("regions").setAttribute("aria-pressed", String(look.regions));
  for (const old of $("detail-picture").querySelectorAll(".heat, .other")) old.remove();
  $("region-list").replaceChildren();
  $("region-list").hidden = !regions;
  $("heatmap-scale").hidden = !heatmap;
  $("region-status").textContent = heatmap ? describeHeatmap(answer) : "";
  $("detail-picture").classList.toggle("heated", Boolean(heatmap));
  if (heatmap) $("detail-picture").querySelector("img").after(createHeatmap(heatmap));  // below the outlines
  if (regions) listRegions(answer);
}

function describeHeatmap({ text, heatmap: { agreement } }) {
  const approximate = agreement < 0.98 ? ` The stored vector is merged or compressed, so this shows the closest vector of the image (cosine ${agreement.toFixed(2)}).` : "";
  return `Where the model looked for “${text}”.${approximate}`;
}

// One pixel per position of the grid. The browser interpolates linearly when it enlarges them, as the outlines do.
function createHeatmap({ rows, columns, values, frame }) {
  const clip = element("div", "heat"), canvas = Object.assign(element("canvas"), { width: columns, height: rows });
  const pixels = new ImageData(columns, rows);
  values.forEach((value, k) => pixels.data.set([...HEAT_COLOUR, Math.round(255 * HEAT_ALPHA * value)], 4 * k));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  placeAt(canvas, frame);
  const strongest = values.indexOf(Math.max(...values));
  const x = frame.x0 + (strongest % columns + 0.5) / columns * (frame.x1 - frame.x0);
  const y = frame.y0 + (Math.floor(strongest / columns) + 0.5) / rows * (frame.y1 - frame.y0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Heatmap: strongest ${Math.round(x * 100)} % from the left and ${Math.round(y * 100)} % from the top`);
  clip.append(canvas);
  return clip;
}

// Outline and list the regions of the vectors, the best first.
function listRegions(answer) {
  const regions = answer.regions.map((region, index) => ({ ...region, index })).filter((region) => region.box);
  regions.sort((a, b) => (b.score ?? 0) - (a.score ?? 0) || a.index - b.index);
  for (const region of regions.slice(0, MOST_REGIONS)) {
    const label = region.score === null ? `Region ${region.index + 1}` : region.score.toFixed(3);
    if (region.index === answer.winner) {
      const outline = () => $("detail-picture").querySelector(".region:not(.drawn)");
      $("region-list").append(createRegionLine(region.box, `${label} (best match)`, outline));
      continue;
    }
    const outline = createOutline(region.box, "other");
    outline.append(element("span", "", label));
    $("detail-picture").append(outline);
    $("region-list").append(createRegionLine(region.box, label, () => outline));
  }
  const more = regions.length - MOST_REGIONS;
  if (more > 0) $("region-list").append(element("li", "", `and ${more} more, not outlined`));
}

function createRegionLine({ x0, y0, x1, y1 }, label, outline) {
  const line = element("li"), button = element("button", "", label);
  button.type = "button";
  button.append(element("span", "extent", `x ${Math.round(x0 * 100)}–${Math.round(x1 * 100)} %, y ${Math.round(y0 * 100)}–${Math.round(y1 * 100)} %`));
  const highlight = (on) => () => outline()?.classList.toggle("on", on);
  for (const event of ["focus", "pointerenter"]) button.addEventListener(event, highlight(true));
  for (const event of ["blur", "pointerleave"]) button.addEventListener(event, highlight(false));
  line.append(button);
  return line;
}

// what: "heatmap" or "regions".
function toggleLook(what) {
  if (what === "heatmap" && !hasText()) return;
  look[what] = !look[what];
  if (look.answer && (what === "regions" || look.answer.heatmap)) drawRegions(); else loadRegions();
}

// A region drawn by hand

// box: fractions of the image's width and height, or null.
function setDrawnRegion(box) {
  state.drawnRegion = box;
  $("detail-picture").querySelector(".drawn")?.remove();
  if (box) $("detail-picture").append(createOutline(box, "region drawn"));
  $("draw-region").setAttribute("aria-pressed", String(box !== null));
  $("detail-picture").classList.toggle("drawing", box !== null);
  $("similar-region").hidden = !box && !state.results[state.openIndex]?.box;
  const size = (from, to) => Math.round((to - from) * 100);
  $("drawn-status").textContent = box
    ? `Region ${size(box.x0, box.x1)} % wide, ${size(box.y0, box.y1)} % high. ${isTouch() ? DRAW_BY_TOUCH : DRAW_BY_KEYS}`
    : isTouch() ? "Press Draw a region, then draw over the image with a finger." : "Drag over the image or press c to draw a region.";
  keepDetailFocus();
}

function toggleDrawnRegion() {
  setDrawnRegion(state.drawnRegion ? null : { x0: 0.25, y0: 0.25, x1: 0.75, y1: 0.75 });
  $("detail-picture").focus({ preventScroll: true });
}

function moveBox({ x0, y0, x1, y1 }, dx, dy) {
  const [x, y] = [clamp(dx, -x0, 1 - x1), clamp(dy, -y0, 1 - y1)];
  return { x0: x0 + x, y0: y0 + y, x1: x1 + x, y1: y1 + y };
}
function resizeBox({ x0, y0, x1, y1 }, dx, dy) {
  return { x0, y0, x1: clamp(x1 + dx, x0 + MIN_SIDE), y1: clamp(y1 + dy, y0 + MIN_SIDE) };
}

// Captured, so that arrow keys move a drawn region before they change the image.
$("detail").addEventListener("keydown", (event) => {
  if (hasModifier(event)) return;
  const move = { ArrowRight: [STEP, 0], ArrowLeft: [-STEP, 0], ArrowDown: [0, STEP], ArrowUp: [0, -STEP] }[event.key];
  if (event.key === "c") toggleDrawnRegion();
  else if (!state.drawnRegion) return;
  else if (move) setDrawnRegion((event.shiftKey ? resizeBox : moveBox)(state.drawnRegion, ...move));
  else if (event.key === "Escape") setDrawnRegion(null);
  else if (event.key === "Enter" && !event.target.matches("button")) searchSimilar(state.results[state.openIndex], state.drawnRegion);
  else return;
  event.preventDefault();
  event.stopImmediatePropagation();
}, true);

// A mouse always draws. A finger scrolls until a region is drawn.
$("detail-picture").addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || (event.pointerType === "touch" && !state.drawnRegion)) return;
  event.preventDefault();
  const picture = $("detail-picture");
  picture.focus({ preventScroll: true });
  const edges = picture.getBoundingClientRect();
  const position = (e) => [clamp((e.clientX - edges.left) / edges.width), clamp((e.clientY - edges.top) / edges.height)];
  const [x, y] = position(event);
  const draw = (e) => {
    const [u, v] = position(e), box = { x0: Math.min(x, u), y0: Math.min(y, v), x1: Math.max(x, u), y1: Math.max(y, v) };
    setDrawnRegion(box.x1 - box.x0 >= MIN_SIDE && box.y1 - box.y0 >= MIN_SIDE ? box : null);
  };
  const end = () => { picture.removeEventListener("pointermove", draw); };
  picture.setPointerCapture(event.pointerId);
  picture.addEventListener("pointermove", draw);
  for (const name of ["pointerup", "pointercancel"]) picture.addEventListener(name, end, { once: true });
});

// Buttons and keys

$("heatmap").addEventListener("click", () => toggleLook("heatmap"));
$("regions").addEventListener("click", () => toggleLook("regions"));
$("draw-region").addEventListener("click", toggleDrawnRegion);
$("detail-select").addEventListener("click", () => toggleSelected(state.results[state.openIndex]));
$("similar-image").addEventListener("click", () => searchSimilar(state.results[state.openIndex], null));
$("similar-region").addEventListener("click", () => searchSimilar(state.results[state.openIndex], state.drawnRegion ?? state.results[state.openIndex].box));
$("previous").addEventListener("click", () => openDetail(visibleNeighbour(-1)));
$("next").addEventListener("click", () => openDetail(visibleNeighbour(1)));
$("detail-close").addEventListener("click", () => $("detail").close());
$("detail").addEventListener("close", () => {
  const position = state.shown.indexOf(state.openIndex);
  if (position >= 0) focusCard(position);
});
$("detail").addEventListener("keydown", (event) => {
  if (hasModifier(event)) return;
  if (event.key === "ArrowRight") openDetail(visibleNeighbour(1));
  else if (event.key === "ArrowLeft") openDetail(visibleNeighbour(-1));
  else if (event.key === " " && event.target.tagName !== "BUTTON") toggleSelected(state.results[state.openIndex]);
  else if (event.key === "m") searchSimilar(state.results[state.openIndex], null);
  else if (event.key === "h") toggleLook("heatmap");
  else if (event.key === "o") toggleLook("regions");
  else return;
  event.preventDefault();
});
