"use strict";
// Whatever comes from the service may be hostile: it is only ever set as text, a number, or a key in a path.
const PAGE = 60, DEFAULT = "picked";
const $ = (id) => document.getElementById(id);
const make = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
const remembered = (name, otherwise) => {
  try { return JSON.parse(localStorage.getItem("forclip." + name)) ?? otherwise; } catch { return otherwise; }
};
const remember = (name, value) => {
  try { localStorage.setItem("forclip." + name, JSON.stringify(value)); } catch { /* private windows */ }
};

const state = {
  asked: null,        // what the list answers: {kind, body}, {kind: "upload", file, body} or {kind: "columns"}
  results: [],        // as the service sent them
  confidence: null, whole: false, turn: 0, open: -1,
  picked: new Set(), selection: remembered("selection", DEFAULT),
};

// What the service answers. Throws with its sentence where it refuses.
async function answerOf(path, options = {}) {
  if (options.json !== undefined) {
    options = { ...options, method: "POST", body: JSON.stringify(options.json), headers: { "Content-Type": "application/json" } };
  }
  let answer;
  try { answer = await fetch(path, options); } catch { throw new Error("The service does not answer."); }
  if (!answer.ok) {
    const content = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(content.detail || `The service answered ${answer.status}.`), { status: answer.status });
  }
  return answer;
}
async function call(path, options) {
  const answer = await answerOf(path, options);
  return answer.status === 204 ? null : answer.json().catch(() => ({}));
}

function tell(sentence) { $("status").textContent = sentence; }
function complain(error) {
  $("problem").textContent = error ? error.message : "";
  $("problem").hidden = !error;
}
const trying = (work) => (...given) => work(...given).catch(complain);
