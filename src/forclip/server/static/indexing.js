// Indexing: a bar while the service fills its store. Images can be searched as soon as they are stored.

const INDEXING_MILLISECONDS = 1500;
const indexing = { line: null, bar: null, text: null, again: null, stored: -1, runs: false };

function showIndexing(now) {
  if (!indexing.line) {
    indexing.line = element("p", "note");
    indexing.line.id = "indexing";
    indexing.bar = element("progress");
    indexing.bar.setAttribute("aria-label", "Indexing");
    indexing.text = element("span");
    indexing.again = element("button", "", "Search again");
    indexing.again.type = "button";
    indexing.again.hidden = true;
    indexing.again.addEventListener("click", () => { indexing.again.hidden = true; $("form").requestSubmit(); });
    indexing.line.append(indexing.bar, " ", indexing.text, " ", indexing.again);
    document.querySelector("main").prepend(indexing.line);
  }
  const looking = now.state === "looking" || !now.total;
  indexing.runs = ["looking", "indexing"].includes(now.state);
  indexing.bar.hidden = !indexing.runs;
  if (indexing.runs) $("no-images").hidden = true;
  if (looking) indexing.bar.removeAttribute("value");
  else Object.assign(indexing.bar, { max: now.total, value: now.done });
  indexing.text.textContent = describeIndexing(now);
  indexing.line.hidden = now.state === "done" && !now.total;
}

function describeIndexing(now) {
  if (now.state === "failed") return `Indexing ${now.source} failed: ${now.message}`;
  if (now.state === "looking") return `Looking for new images in ${now.source}…`;
  const unread = now.unreadable ? `, ${now.unreadable.toLocaleString("en")} could not be read` : "";
  if (now.state === "done") return `${plural(now.total - now.unreadable, "new image")} indexed${unread}.`;
  const left = now.seconds_left === null ? "" : `, about ${describeSeconds(now.seconds_left)} left`;
  return `Indexing: ${now.done.toLocaleString("en")} of ${plural(now.total, "image")}${left}. ${now.done ? "You can search already." : "The first ones can be found soon."}`;
}

function describeSeconds(seconds) {
  if (seconds < 90) return plural(Math.max(1, Math.round(seconds)), "second");
  return seconds < 5400 ? plural(Math.round(seconds / 60), "minute") : plural(Math.round(seconds / 3600), "hour");
}

async function watchIndexing() {
  let now = null;
  try { now = await call("api/indexing"); } catch { /* the next call may succeed */ }
  if (now && now.state === "none") return;
  if (now) {
    showIndexing(now);
    const info = await call("api/info").catch(() => null);
    if (info && info.images !== indexing.stored) {
      $("size").textContent = `${plural(info.images, "image")} in this collection.`;
      indexing.again.hidden = indexing.stored < 0 || !state.request;
      indexing.stored = info.images;
      if (!$("empty").hidden) loadSample();
    }
    if (now.state === "done" || now.state === "failed") return;
  }
  setTimeout(watchIndexing, INDEXING_MILLISECONDS);
}

watchIndexing();
