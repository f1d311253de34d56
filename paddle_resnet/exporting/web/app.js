// Classifies pictures with ONNX Runtime in this browser. `description.json` has the classes and the preprocessing.

const byId = (id) => document.getElementById(id);
let session;
let description;

async function load() {
  description = await (await fetch("description.json")).json();
  ort.env.wasm.wasmPaths = new URL(description.runtime, location.href).href;
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? undefined : 1;
  session = await ort.InferenceSession.create(description.model, { executionProviders: ["wasm"] });
  byId("about").textContent = `${description.name} tells ${description.classes.length} classes apart.`;
  byId("start").hidden = !navigator.mediaDevices;
}

// Decode with EXIF's orientation and without a colour profile, as Pillow does.
async function pixelsOf(source) {
  const bitmap = await createImageBitmap(source, {
    imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none",
  });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  return preprocess.withoutAlpha(data, bitmap.width, bitmap.height);
}

// Return the classes with their probabilities, the best first.
async function classify(source) {
  const { size, resize, classes } = description;
  const pixels = preprocess.resizeAndCrop(await pixelsOf(source), resize, size);
  const result = await session.run({ images: new ort.Tensor("uint8", pixels, [1, size, size, 3]) });
  const scores = Array.from(result.probabilities.data, (probability, number) => [classes[number], probability]);
  return scores.sort((one, other) => other[1] - one[1]);
}

function words(scores) {
  const [label, probability] = scores[0];
  const shown = probability < description.threshold ? "unknown" : label;
  return `${shown} ${(100 * probability).toFixed(1)}%`;
}

async function show(file) {
  const item = byId("answer").content.firstElementChild.cloneNode(true);
  const [picture, answer, name] = item.children;
  picture.src = URL.createObjectURL(file);
  name.textContent = file.name;
  byId("answers").append(item);
  try {
    const scores = await classify(file);
    answer.textContent = words(scores);
    item.dataset.scores = JSON.stringify({ name: file.name, label: scores[0][0], probability: scores[0][1] });
  } catch (error) {
    answer.className = "error";
    answer.textContent = `cannot be read as a picture (${error.message})`;
    item.dataset.scores = JSON.stringify({ name: file.name, error: error.message });
  }
}

const showAll = async (files) => { for (const file of files) await show(file); };

async function watchCamera() {
  const video = document.querySelector("#camera video");
  video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  byId("camera").hidden = false;
  await video.play();
  while (video.srcObject) {
    byId("live").textContent = words(await classify(video));
    await new Promise(requestAnimationFrame);
  }
}

const fail = (error) => { byId("about").className = "error"; byId("about").textContent = error.message; };
const ready = load().catch(fail);
byId("files").addEventListener("change", (event) => ready.then(() => showAll([...event.target.files])));
byId("start").addEventListener("click", () => watchCamera().catch(fail));
const drop = byId("drop");
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.toggle("over", over); });
}
drop.addEventListener("drop", (event) => ready.then(() => showAll([...event.dataTransfer.files])));
