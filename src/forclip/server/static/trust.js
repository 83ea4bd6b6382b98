// How far to trust the list.

function setUpSlider() {
  const sure = state.results.length > 0 && state.results[0].probability !== null;
  const scores = state.results.map((r) => r.score);
  const slider = $("slider");
  state.sure = sure;
  $("slider-name").textContent = sure ? "Cut off below probability" : "Cut off below score";
  slider.min = sure || !scores.length ? 0 : Math.floor(Math.min(...scores) * 100) / 100;
  slider.max = sure ? 1 : Math.ceil(Math.max(...scores, 0.01) * 100) / 100;
  slider.step = sure ? 0.01 : 0.002;
  slider.value = slider.min;
  // Of several texts there is no score that the whole list is ordered by.
  $("cutoff").hidden = !state.results.length || (state.asked.kind === "search" && !oneText(state.asked));
  const j = state.confidence;
  $("recommended").hidden = !j || !j.cutoff;
  $("advice").hidden = !j || j.cutoff > 0;
  if (j) $("recommended").textContent = `Recommended: the best ${j.cutoff}`;
  state.best = null;
}

function cut() {
  const from = Number($("slider").value);
  const kept = (r) => state.best !== null ? r.rank <= state.best : (state.sure ? r.probability : r.score) >= from;
  let count = 0;
  state.results.forEach((r, k) => {
    const keep = Number($("slider").value) <= Number($("slider").min) && state.best === null ? true : kept(r);
    $(`card-${k}`).hidden = !keep;
    count += keep;
  });
  const focusable = shown();
  if (focusable.length && !focusable.some((c) => c.tabIndex === 0)) focusable[0].tabIndex = 0;
  $("slider-value").textContent = state.best !== null ? `best ${state.best}` : state.sure ? `${Math.round(from * 100)} %` : from.toFixed(3);
  $("more").hidden = state.whole || count < state.results.length;
  const j = state.confidence;
  const expected = j && j.expected_images !== null ? `; about ${Math.round(j.expected_images)} expected in all` : "";
  tell(`${count} ${count === 1 ? "image" : "images"}${state.whole ? "" : " so far"} ${state.told}${expected}`);
}

$("slider").addEventListener("input", () => { state.best = null; cut(); });
$("recommended").addEventListener("click", trying(async () => {
  state.best = state.confidence.cutoff;
  while (state.results.length < state.best && !state.whole) await more();
  cut();
}));
$("more-button").addEventListener("click", () => more());
new IntersectionObserver((seen) => { if (seen[0].isIntersecting && !$("more").hidden) more(); }, { rootMargin: "600px" }).observe($("more"));
