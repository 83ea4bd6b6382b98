// Details of the image in the closer look: when and with what it was taken, its path, and why it can't be shown.

let detailsTurn = 0;

// Add what the image's file says, once the service has read it.
async function loadDetails(result) {
  const turn = ++detailsTurn;
  let found;
  try {
    const { taken, camera, path } = await call(`api/details/${result.key}`);
    found = [["taken", taken?.replace("T", " ")], ["camera", camera], ["path", path]];
  } catch (error) { found = [["details", error.message]]; }
  if (turn !== detailsTurn) return;
  $("facts").append(...factLines(found.filter(([, value]) => value)));
}

function factLines(facts) { return facts.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]); }

// Say why an image can't be shown. The service sends the reason with the image.
async function showProblem(result, image) {
  let message = "the picture can't be shown";
  try { await fetchResponse(`api/image/${result.key}`); } catch (error) { message = error.message; }
  if (image !== $("detail-picture").querySelector("img")) return;  // another image is open
  const text = message.replace(/\.$/, "");
  $("detail-problem-text").textContent = `${text[0].toUpperCase()}${text.slice(1)}.`;
  $("detail-problem").hidden = false;
  $("detail-view").hidden = true;
  keepDetailFocus();
}

function hideProblem() {
  $("detail-problem").hidden = true;
  $("detail-view").hidden = false;
}

// Move the focus to the image if what had it is gone or hidden.
function keepDetailFocus() {
  const focused = document.activeElement;
  if (!$("detail").open || ($("detail").contains(focused) && focused.checkVisibility())) return;
  ($("detail-view").hidden ? $("detail-close") : $("detail-picture")).focus({ preventScroll: true });
}

$("detail-retry").addEventListener("click", () => openDetail(state.openIndex));
