// Handing on: the selection, the list as it is cut off, or what was judged.

const FORMATS = { coco: "COCO JSON", csv: "CSV", fiftyone: "FiftyOne (zip)", files: "File list" };
const LONGEST = 1000;  // images of a list in one file

function exportable() {
  const { right = [], wrong = [] } = picksOf(state.asked), count = Math.min(shown().length, LONGEST);
  return [
    state.picked.size && ["selection", `Selection “${state.selection}”: ${state.picked.size}`],
    state.asked?.kind === "search" && count && ["list", `List, as cut off now: ${count}`],
    right.length + wrong.length && ["verdicts", `Judged: ${right.length} right, ${wrong.length} wrong`],
  ].filter(Boolean);
}

function openExport(what) {
  const all = exportable();
  if (!all.length) return tell("There is nothing to export yet: search for a text, or pick images with space.");
  const options = all.map(([value, text]) => Object.assign(make("option", "", text), { value }));
  $("what").replaceChildren(...options);
  if (all.some(([value]) => value === what)) $("what").value = what;
  $("label").value = oneText(state.asked);
  $("format").value = remembered("format", "csv");
  suitExport();
  $("exporting-problem").hidden = true;
  if ($("detail").open) $("detail").close();
  $("exporting").showModal();
}

function suitExport() {
  const what = $("what").value;
  $("format").disabled = what === "verdicts";
  if (what === "verdicts") $("format").value = "csv";
  $("label").required = what === "verdicts";
  $("label-told").textContent = {
    selection: "Their places are found by it. Left empty, there are images without places.",
    list: "Left empty, it is what was looked for.",
    verdicts: "The class that a training reads them as.",
  }[what];
}

function exportRequest() {
  const what = $("what").value, label = $("label").value.trim(), format = $("format").value;
  if (what === "verdicts") return ["api/export/verdicts", { json: { label, ...picksOf(state.asked) } }];
  if (what === "selection") {
    const options = new URLSearchParams(label ? { format, text: label } : { format });
    return [`${named(state.selection)}/export?${options}`, {}];
  }
  const body = { ...state.asked.body, ...picksOf(state.asked), k: Math.min(shown().length, LONGEST), format };
  return ["api/export", { json: label ? { ...body, label } : body }];
}

async function save(path, options) {
  const answer = await answerOf(path, options);
  const link = make("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = /filename="([\w.]+)"/.exec(answer.headers.get("Content-Disposition"))[1];
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

$("exporting-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const what = $("what").value;
  $("export-now").disabled = true;
  $("exporting-problem").hidden = true;
  try {
    await save(...exportRequest());
    if (what === "verdicts") unsaved.delete(question(state.asked)); else remember("format", $("format").value);
    $("exporting").close();
  } catch (error) {
    $("exporting-problem").textContent = error.message;
    $("exporting-problem").hidden = false;
  } finally { $("export-now").disabled = false; }
});
$("format").replaceChildren(...Object.entries(FORMATS).map(([value, text]) => Object.assign(make("option", "", text), { value })));
$("what").addEventListener("change", suitExport);
$("exporting-cancel").addEventListener("click", () => $("exporting").close());
$("export").addEventListener("click", () => openExport());
