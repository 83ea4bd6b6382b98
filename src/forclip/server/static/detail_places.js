// Where in the image: the heatmap of the place that answers, and the places of all other vectors.

const places = { heat: false, others: false, answer: null, turn: 0 };
const HEAT = [230, 0, 126], MOST = 0.8;  // one hue; how opaque the strongest position is

function wantedTexts() {
  const body = state.asked && state.asked.kind === "search" ? state.asked.body : {};
  return { any_of: body.any_of ?? [], all_of: body.all_of ?? [], ...(body.where ? { where: body.where } : {}) };
}
function hasText() { const wanted = wantedTexts(); return wanted.any_of.length + wanted.all_of.length > 0; }

// The service is asked only while something of its answer is shown: the model takes its time.
async function showPlaces(r) {
  const turn = ++places.turn;
  places.answer = null;
  $("heat").hidden = !hasText();
  drawPlaces();
  if (!(places.heat && hasText()) && !places.others) return;
  $("places-told").textContent = "Looking …";
  try {
    const answer = await call("api/look", { json: { key: r.key, ...wantedTexts() } });
    if (turn !== places.turn) return;
    places.answer = answer;
    drawPlaces();
  } catch (error) {
    if (turn === places.turn) $("places-told").textContent = error.message;
  }
}

function drawPlaces() {
  const answer = places.answer, heat = places.heat && answer && answer.heatmap;
  $("heat").setAttribute("aria-pressed", String(places.heat));
  $("others").setAttribute("aria-pressed", String(places.others));
  for (const old of $("detail-picture").querySelectorAll(".heat, .other")) old.remove();
  $("places-list").replaceChildren();
  $("places-list").hidden = !(places.others && answer);
  $("heat-scale").hidden = !heat;
  $("places-told").textContent = heat ? heatTold(answer) : "";
  $("detail-picture").classList.toggle("heated", Boolean(heat));
  if (heat) $("detail-picture").querySelector("img").after(heatOf(answer.heatmap));  // below the outlines
  if (places.others && answer) drawOthers(answer);
}

function heatTold(answer) {
  const { agreement } = answer.heatmap;
  const whose = agreement < 0.98 ? ` It is of the nearest vector of the picture, at a cosine of ${agreement.toFixed(2)}.` : "";
  return `How much of the answer to “${answer.text}” comes from where.${whose}`;
}

// A pixel for each position, drawn larger: between positions the browser goes in a straight line, as the outlines do.
function heatOf(heatmap) {
  const { rows, columns, values, frame } = heatmap;
  const clip = make("div", "heat"), canvas = make("canvas");
  Object.assign(canvas, { width: columns, height: rows });
  const pixels = new ImageData(columns, rows);
  values.forEach((value, k) => pixels.data.set([...HEAT, Math.round(255 * MOST * value)], 4 * k));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  putAt(canvas, frame);
  const most = values.indexOf(Math.max(...values));
  const across = frame.x0 + (most % columns + 0.5) / columns * (frame.x1 - frame.x0);
  const down = frame.y0 + (Math.floor(most / columns) + 0.5) / rows * (frame.y1 - frame.y0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Heatmap: strongest ${Math.round(across * 100)} % from the left and ${Math.round(down * 100)} % from the top`);
  clip.append(canvas);
  return clip;
}

function drawOthers(answer) {
  const ranked = answer.regions.map((place, k) => ({ ...place, k })).filter((place) => place.box);
  ranked.sort((a, b) => (b.score ?? 0) - (a.score ?? 0) || a.k - b.k);
  for (const place of ranked) {
    const wins = place.k === answer.winner;
    const outline = wins ? null : outlineOf(place);
    if (outline) $("detail-picture").append(outline);
    $("places-list").append(lineOf(place, wins, outline));
  }
}

function outlineOf(place) {
  const made = make("div", "other");
  putAt(made, place.box);
  made.append(make("span", "", worthOf(place)));
  return made;
}

function lineOf(place, wins, outline) {
  const line = make("li"), button = make("button", "", wins ? `${worthOf(place)} answers` : worthOf(place));
  const { x0, y0, x1, y1 } = place.box;
  const from = `x ${Math.round(x0 * 100)}–${Math.round(x1 * 100)} %, y ${Math.round(y0 * 100)}–${Math.round(y1 * 100)} %`;
  button.type = "button";
  button.append(make("span", "from", from));
  const mark = (on) => () => (outline ?? $("detail-picture").querySelector(".place:not(.crop)"))?.classList.toggle("on", on);
  for (const event of ["focus", "pointerenter"]) button.addEventListener(event, mark(true));
  for (const event of ["blur", "pointerleave"]) button.addEventListener(event, mark(false));
  line.append(button);
  return line;
}

function worthOf(place) { return place.score === null ? `vector ${place.k + 1}` : place.score.toFixed(3); }

function toggle(what) {
  if (what === "heat" && !hasText()) return;
  places[what] = !places[what];
  const r = state.results[state.open];
  if (places.answer && (what === "others" || places.answer.heatmap)) drawPlaces(); else if (r) showPlaces(r);
}
$("heat").addEventListener("click", () => toggle("heat"));
$("others").addEventListener("click", () => toggle("others"));
$("detail").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "h") toggle("heat");
  else if (event.key === "o") toggle("others");
  else return;
  event.preventDefault();
});
