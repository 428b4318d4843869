"use strict";

// The page at work: what mouse, pen, finger and keyboard draw, and what is computed from it.

const DATA = JSON.parse(document.getElementById("data").textContent);
const LAYERS = readLayers(DATA.channels, DATA.weights);
const PROTOTYPES = readPrototypes(DATA.prototypes);
const DIGITS = readDigits(DATA.digits);
const PEN_STEP = 1 / 28; // of the board's side, by one press of an arrow key

const EMPTY = {strokes: [], digit: null};
const board = element("board");
const slider = element("size");

let language = navigator.language.toLowerCase().startsWith("ja") ? "ja" : "en";
// The last picture is shown, the ones before it are for "undo". A picture has strokes, or the number of a test digit.
// The first one is an example, so that there is something to see at once.
let pictures = [{strokes: [], digit: 3}];
let pointer = null; // id of the pointer that draws a stroke
let pen = {x: 0.5, y: 0.5, down: false}; // the pen that the keyboard moves
let images = null; // what is shown: {original, shrunk, degraded, restored}; null where nothing is drawn
let frame = null; // the request for the next update

function element(id) {
  return document.getElementById(id);
}

function readDigits(base64) {
  const bytes = readBytes(base64);
  const pixels = SIDE * SIDE;
  return Array.from({length: bytes.length / pixels}, (_, number) => ({
    height: SIDE,
    width: SIDE,
    pixels: Float64Array.from(bytes.subarray(number * pixels, (number + 1) * pixels), (value) => value / 255),
  }));
}

// ---- Words

function word(name, values = {}) {
  return WORDS[language][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

function writeWords() {
  const values = {
    size: slider.value,
    parameters: DATA.parameters.toLocaleString("en"),
    prototypes: PROTOTYPES.length,
    accuracy: (100 * DATA.accuracy).toFixed(1),
  };
  document.documentElement.lang = language;
  document.title = `${word("title")} · srmnist`;
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = word(node.dataset.word, values);
  for (const node of document.querySelectorAll("[data-label]")) {
    node.setAttribute("aria-label", word(node.dataset.label, values));
  }
  element("digits").childNodes.forEach((button, digit) => button.setAttribute("aria-label", word("digit", {digit})));
  const other = language === "en" ? "ja" : "en";
  Object.assign(element("language"), {lang: other, textContent: other === "ja" ? "日本語" : "English"});
}

// ---- What is drawn

function picture() {
  return pictures[pictures.length - 1];
}

function show(next) {
  pictures.push(next);
  schedule();
}

function undo() {
  pointer = null;
  pen.down = false;
  if (pictures.length > 1) pictures.pop();
  schedule();
  announce();
}

function clear() {
  pointer = null;
  pen.down = false;
  if (picture() !== EMPTY) show(EMPTY);
  announce();
}

function showDigit(digit) {
  pointer = null;
  pen.down = false;
  show({strokes: [], digit});
  announce();
}

// A stroke on a test digit begins a new drawing.
function beginStroke(point) {
  show({strokes: [...picture().strokes, [point]], digit: null});
}

function extendStroke(...points) {
  picture().strokes[picture().strokes.length - 1].push(...points);
  schedule();
}

// ---- What is computed

// Many events come between two frames of the screen; one update a frame is enough.
function schedule() {
  frame ??= requestAnimationFrame(update);
}

function update() {
  frame = null;
  const {strokes, digit} = picture();
  const original = digit === null ? likeMnist(strokes) : DIGITS[digit];
  images = original && stepsFrom(original, Number(slider.value));
  paintBoard();
  showViews();
  element("undo").disabled = pictures.length === 1;
  element("clear").disabled = picture() === EMPTY;
  element("hint").hidden = strokes.length > 0;
}

function stepsFrom(original, size) {
  const shrunk = resize(original, size, size);
  const degraded = resize(shrunk, original.height, original.width);
  return {original, shrunk, degraded, restored: restore(LAYERS, degraded)};
}

// Tell a screen reader what has come of it, when a stroke has ended and not at every point of it.
function announce() {
  if (frame !== null) {
    cancelAnimationFrame(frame);
    update();
  }
  if (!images) {
    element("announcement").textContent = word("empty");
    return;
  }
  const values = {degradedDecibels: decibels("degraded"), restoredDecibels: decibels("restored")};
  for (const name of ["original", "degraded", "restored"]) values[name] = read(PROTOTYPES, images[name]);
  element("announcement").textContent = word("announcement", values);
}

// ---- Mouse, pen and finger

function pointOf(event) {
  const {left, top, width, height} = board.getBoundingClientRect();
  return [within((event.clientX - left) / width, 0, 1), within((event.clientY - top) / height, 0, 1)];
}

board.addEventListener("pointerdown", (event) => {
  if (pointer !== null || event.button !== 0) return;
  pointer = event.pointerId;
  pen.down = false;
  board.setPointerCapture(pointer);
  beginStroke(pointOf(event));
});

board.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer) return;
  // Browsers join the moves between two frames; a fast stroke would get corners.
  const moves = event.getCoalescedEvents?.() ?? [];
  extendStroke(...(moves.length > 0 ? moves : [event]).map(pointOf));
});

for (const name of ["pointerup", "pointercancel"]) {
  board.addEventListener(name, (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    announce();
  });
}

// The board gets the keyboard's focus by Tab only: after a stroke of the mouse the arrow keys still move the slider.
board.addEventListener("mousedown", (event) => event.preventDefault());

// ---- Keyboard

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

function movePen([stepX, stepY]) {
  pen.x = within(pen.x + stepX * PEN_STEP, 0, 1);
  pen.y = within(pen.y + stepY * PEN_STEP, 0, 1);
  if (pen.down) extendStroke([pen.x, pen.y]);
  schedule();
}

function turnPen() {
  pen.down = !pen.down;
  if (pen.down) beginStroke([pen.x, pen.y]);
  else announce();
  schedule();
}

function moveSlider(step) {
  slider.valueAsNumber += step; // the browser keeps it between 4 and 28
  slider.dispatchEvent(new Event("input"));
  slider.dispatchEvent(new Event("change"));
}

// What a key does, or undefined for a key that is the browser's.
function actionOf({key, target, ctrlKey, metaKey, altKey}) {
  if (ctrlKey || metaKey) return key === "z" && !altKey ? undo : undefined;
  if (altKey) return undefined;
  if (/^[0-9]$/.test(key)) return () => showDigit(Number(key));
  if (key === "Escape") return clear;
  if (key === "Backspace") return undo;
  if (target === board && key in ARROWS) return () => movePen(ARROWS[key]);
  if (target === board && key === " ") return turnPen;
  if (target !== slider && key === "ArrowLeft") return () => moveSlider(-1);
  if (target !== slider && key === "ArrowRight") return () => moveSlider(1);
  return undefined;
}

document.addEventListener("keydown", (event) => {
  const action = actionOf(event);
  if (!action) return;
  event.preventDefault();
  action();
});

board.addEventListener("focus", schedule);
board.addEventListener("blur", () => {
  pen.down = false;
  schedule();
});

// ---- Buttons and slider

function makeDigitButtons() {
  DIGITS.forEach((image, digit) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(document.createElement("canvas"));
    paint(button.firstChild, image, SIDE);
    button.addEventListener("click", () => showDigit(digit));
    element("digits").append(button);
  });
}

element("undo").addEventListener("click", undo);
element("clear").addEventListener("click", clear);
element("language").addEventListener("click", () => {
  language = language === "en" ? "ja" : "en";
  writeWords();
  schedule();
});
slider.addEventListener("input", () => {
  writeWords();
  schedule();
});
slider.addEventListener("change", announce);

// ---- Start

Object.assign(slider, {min: DATA.smallest, max: SIDE, value: DATA.size});
makeDigitButtons();
writeWords();
new ResizeObserver(schedule).observe(board);
schedule();
