// Shared by all scripts: the page's state, DOM helpers, local storage, messages and calls to the service.
// Text from the service is untrusted: it is only set as text content, as a number, or as a key in a path.
"use strict";

const PAGE_SIZE = 60, DEFAULT_SELECTION = "picked";

const state = {
  request: null,       // what the results answer, see search.js
  latest: null,        // the latest request, also one that failed
  text: "",            // that was searched for; "" for images
  results: [],         // as the service sent them, the best first
  listed: 0,           // how many results are above the cut-off
  shown: [],           // indexes of those that have a card, in the order on the page
  sort: "score",       // see results.js
  filters: new Map(),  // by column, see filters.js
  current: 0,          // index of the result that the Tab key reaches
  anchor: -1,          // index of the result where a range of selected images starts
  mostListed: 20000,   // how many results of a list the service sends
  mostSkipped: 10000,  // how many of them a request may skip
  confidence: null,    // of the results, as the service sent it
  notes: [],           // sentences about the text, as the service sent them
  labels: null,        // what the labels say about the results, as the service sent it
  complete: false,     // whether no more results can be loaded
  turn: 0,             // counts requests: only the latest answer is shown
  openIndex: -1,       // index of the result in the closer look
  selection: remembered("selection", DEFAULT_SELECTION),
  selectedKeys: new Set(),
  reviewer: remembered("reviewer", "me"),
  saved: [],           // searches of the reviewer, see reviews.js
};

function $(id) { return document.getElementById(id); }

function element(tag, className, text) {
  const created = document.createElement(tag);
  if (className) created.className = className;
  if (text !== undefined) created.textContent = text;
  return created;
}

function option(value, text = value) { return Object.assign(element("option", "", text), { value }); }

function plural(count, singular) { return `${count.toLocaleString("en")} ${singular}${count === 1 ? "" : "s"}`; }

// Whether fingers are the main means of input.
function isTouch() { return matchMedia("(hover: none) and (pointer: coarse)").matches; }

function hasModifier(event) { return event.ctrlKey || event.metaKey || event.altKey; }

function remembered(name, fallback) {
  try { return JSON.parse(localStorage.getItem("forclip." + name)) ?? fallback; } catch { return fallback; }
}

function remember(name, value) {
  try { localStorage.setItem("forclip." + name, JSON.stringify(value)); } catch { /* private windows refuse */ }
}

// Return the service's response. Throws an Error with the service's message if it refuses, then also with its status, or
// can't be reached.
async function fetchResponse(path, options = {}) {
  if (options.json !== undefined) {
    options = { ...options, method: "POST", body: JSON.stringify(options.json), headers: { "Content-Type": "application/json" } };
  }
  let response;
  try { response = await fetch(path, options); } catch { throw new Error("The service does not respond."); }
  if (!response.ok) {
    const content = await response.json().catch(() => ({}));
    throw Object.assign(new Error(content.detail || `The service failed with status ${response.status}.`), { status: response.status });
  }
  return response;
}

async function call(path, options) {
  const response = await fetchResponse(path, options);
  return response.status === 204 ? null : response.json().catch(() => ({}));
}

function showStatus(message) { $("status").textContent = message; }

// retry: what the button Retry does; without it there is no button.
function showError(error, retry = null) {
  $("error-text").textContent = error ? error.message : "";
  $("error").hidden = !error;
  $("retry").hidden = !retry;
  $("retry").onclick = retry;
}

// Wrap a function so that its errors are shown on the page.
function showingErrors(work) { return (...values) => work(...values).catch((error) => showError(error, error.retry)); }
