// A closer look.

function look(k) {
  const r = state.results[k];
  if (!r) return;
  state.open = k;
  $("detail-name").textContent = `${r.rank}. ${r.name}`;
  const picture = $("detail-picture");
  pictureOf(r, `api/image/${r.key}`, picture).alt = r.name;
  picture.style.width = r.width && r.height ? `min(100%, ${(window.innerWidth > 700 ? 74 : 50) * r.width / r.height}vh)` : "100%";
  picture.style.height = "auto";
  const facts = [["score", r.score.toFixed(4)]];
  if (r.probability !== null) facts.push(["probability", `${percent(r.probability)} %`]);
  facts.push(...labelFact(r));
  facts.push(["size", `${r.width} × ${r.height}`]);
  for (const [name, value] of Object.entries(r.metadata)) {
    facts.push([name, value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value)]);
  }
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
  dropCrop();
  $("before").disabled = step(-1) < 0;
  $("after").disabled = step(1) < 0;
  showPickedState();
  showSaid();
  showPlaces(r);
  if (!$("detail").open) $("detail").showModal();
}

function step(by) {
  const all = shown().map((c) => Number(c.dataset.place));
  return all[all.indexOf(state.open) + by] ?? -1;
}
function lookAt(k) { if (k >= 0) look(k); }
function showPickedState() {
  const r = state.results[state.open];
  if (!r) return;
  const picked = state.picked.has(r.key);
  $("detail-pick").setAttribute("aria-pressed", String(picked));
  $("detail-pick").textContent = picked ? "Picked" : "Pick";
}
$("detail-pick").addEventListener("click", () => pick(state.results[state.open]));
$("like-image").addEventListener("click", () => alike(state.results[state.open], null));
$("like-place").addEventListener("click", () => alike(state.results[state.open], state.crop ?? state.results[state.open].box));
$("before").addEventListener("click", () => lookAt(step(-1)));
$("after").addEventListener("click", () => lookAt(step(1)));
$("detail-close").addEventListener("click", () => $("detail").close());
$("detail").addEventListener("close", () => {
  const last = $(`card-${state.open}`);
  if (last && !last.hidden) focusCard(shown().indexOf(last));
});
$("detail").addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") lookAt(step(1));
  else if (event.key === "ArrowLeft") lookAt(step(-1));
  else if (event.key === " " && event.target.tagName !== "BUTTON") pick(state.results[state.open]);
  else if (event.key === "m") alike(state.results[state.open], null);
  else return;
  event.preventDefault();
});
