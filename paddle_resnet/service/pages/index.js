"use strict";
// Each picture is a request of its own, a few at a time: one that cannot be read does not fail the others.
const MAX_RUNNING = 3;
const MAX_TRIES = 5;
const SMALL = 96;  // pixels: smaller pictures are shown with sharp pixels

const byId = (id) => document.getElementById(id);
const state = { model: null, waiting: [], running: 0, done: 0, failed: 0 };

function showStatus() {
  const open = state.waiting.length + state.running;
  const parts = [];
  if (open) parts.push(`${open} waiting`);
  if (state.done) parts.push(`${state.done} answered`);
  if (state.failed) parts.push(`${state.failed} failed`);
  byId("status").textContent = parts.join(", ");
  byId("clear").hidden = !byId("answers").children.length;
}

// Send a request, with the token of the service if it needs one.
async function ask(address, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { ...options.headers, Authorization: `Bearer ${token}` } : options.headers;
  const response = await fetch(address, { ...options, headers });
  const typed = response.status === 401 && prompt("The token of this service:");
  if (!typed) return response;
  sessionStorage.setItem("token", typed.trim());
  return ask(address, options);
}

// Send a request, again while the service is busy; return its response, or throw its error.
async function post(address, file) {
  for (let attempt = 1; ; attempt++) {
    let response;
    try {
      response = await ask(address, { method: "POST", headers: { "Content-Type": "image/unknown" }, body: file });
    } catch {
      throw new Error("The service cannot be reached.");
    }
    const result = await response.json().catch(() => null);
    if (response.ok && result) return result;
    if (response.status === 429 && attempt < MAX_TRIES) {
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
      continue;
    }
    throw new Error(result?.error ? errorText(result.error) : `The service answered with status ${response.status}.`);
  }
}

function errorText(error) {
  const texts = {
    unreadable_image: "This is no picture that can be read. JPEG, PNG, WebP, GIF and BMP are.",
    image_too_large: "This picture has too many pixels.",
    body_too_large: "This file is too large.",
    busy: "The service is busy. Try again later.",
  };
  return texts[error.code] || error.message;
}

const percent = (share) => share > 0 && share < 0.0005 ? "< 0.1%" : `${(100 * share).toFixed(1)}%`;
const clone = (template) => byId(template).content.firstElementChild.cloneNode(true);

function scoreRow({ class: label, probability }) {
  const row = clone("score");
  const name = row.querySelector("th");
  name.textContent = name.title = label;
  row.querySelector(".fill").style.width = `${100 * probability}%`;
  row.querySelector(".share").textContent = percent(probability);
  return row;
}

function addCard(file) {
  const card = clone("card");
  const picture = card.querySelector(".picture");
  picture.src = URL.createObjectURL(file);
  picture.onload = () => picture.classList.toggle("small", Math.max(picture.naturalWidth, picture.naturalHeight) <= SMALL);
  picture.onerror = () => picture.remove();
  card.querySelector(".name").textContent = file.name || "pasted picture";
  card.querySelector(".name").title = file.name || "";
  byId("answers").prepend(card);
  state.waiting.push({ file, card });
}

async function classify({ file, card }) {
  const title = card.querySelector("h2");
  try {
    if (file.size > state.model.max_body) throw new Error(errorText({ code: "body_too_large" }));
    const { predictions } = await post("predict", file);
    const { class: decided, top } = predictions[0];
    title.textContent = decided;
    card.querySelector("tbody").replaceChildren(...top.map(scoreRow));
    card.querySelector(".scores").hidden = false;
    card.querySelector(".picture")?.setAttribute("alt", `Picture classified as ${decided}`);
    offerExplanation(file, card, top[0].class);
    state.done++;
  } catch (error) {
    title.textContent = "No answer";
    const line = card.querySelector(".error");
    line.textContent = error.message;
    line.hidden = false;
    state.failed++;
  }
}

function offerExplanation(file, card, label) {
  const button = card.querySelector(".why");
  const note = card.querySelector(".quiet");
  if (!state.model.explain) return;
  button.hidden = false;
  button.setAttribute("aria-label", `Show where the network sees ${label}`);
  let layers = null;
  button.onclick = async () => {
    const show = button.getAttribute("aria-pressed") !== "true";
    if (show && !layers) {
      button.disabled = true;
      try {
        layers = overlay(await post("explain", file), label);
        card.querySelector(".frame").append(...layers);
      } catch (error) {
        note.textContent = error.message;
        note.hidden = false;
        return;
      } finally {
        button.disabled = false;
      }
    }
    button.setAttribute("aria-pressed", String(show));
    note.textContent = `What the network sees of the picture. The stronger the orange, the more that place speaks for “${label}” (Grad-CAM).`;
    note.hidden = !show;
    for (const layer of layers) layer.hidden = !show;
  };
}

function overlay(explanation, label) {
  const seen = new Image();
  seen.src = explanation.picture;
  seen.alt = "";
  seen.onload = () => seen.classList.toggle("small", seen.naturalWidth <= SMALL);
  const heat = new Image();
  heat.src = explanation.heat;
  heat.alt = `Map of the places that speak for ${label}`;
  heat.className = "heat";
  return [seen, heat];
}

async function classifyWaiting() {
  while (state.model && state.waiting.length && state.running < MAX_RUNNING) {
    state.running++;
    classify(state.waiting.shift()).finally(() => {
      state.running--;
      showStatus();
      classifyWaiting();
    });
  }
  showStatus();
}

function addFiles(files) {
  for (const file of files) addCard(file);
  classifyWaiting();
}

byId("files").addEventListener("change", (event) => {
  addFiles(event.target.files);
  event.target.value = "";
});
byId("clear").addEventListener("click", () => {
  for (const picture of document.querySelectorAll(".picture")) URL.revokeObjectURL(picture.src);
  state.waiting.length = state.done = state.failed = 0;
  byId("answers").replaceChildren();
  showStatus();
  byId("files").focus();
});
for (const type of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", type === "dragover");
    if (type === "drop") addFiles(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => addFiles(event.clipboardData.files));

ask("model").then((response) => response.json()).then((model) => {
  state.model = model;
  const few = model.classes.length <= 12 ? `: ${model.classes.join(", ")}` : "";
  const unsure = model.threshold ? ` Below ${percent(model.threshold)} a picture is “unknown”.` : "";
  byId("about").textContent = `${model.model} tells ${model.classes.length} classes apart${few}.${unsure}`;
  classifyWaiting();
}).catch(() => { byId("about").textContent = "The service cannot be reached."; });
