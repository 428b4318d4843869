"use strict";

// What the page shows: the board, and the four images with their captions. The state that is shown is in app.js.

function showViews() {
  const size = slider.value;
  element("chosen").value = squared(size);
  slider.setAttribute("aria-valuetext", squared(size));
  for (const name of ["original", "shrunk", "degraded", "restored"]) {
    const view = element(name);
    paint(view.querySelector("canvas"), images && images[name], name === "shrunk" ? Number(size) : SIDE);
    const {detail, reading} = caption(name);
    view.querySelector(".detail").textContent = detail;
    view.querySelector(".reading").textContent = reading;
  }
}

function caption(name) {
  if (name === "shrunk") return {detail: squared(slider.value), reading: ""};
  const reading = images ? word("reading", {digit: read(PROTOTYPES, images[name])}) : "";
  if (name === "original") return {detail: squared(SIDE), reading};
  return {detail: images ? word("decibels", {decibels: decibels(name)}) : "", reading};
}

function squared(side) {
  return `${side}×${side}`;
}

function decibels(name) {
  const value = psnr(images[name], images.original);
  return value === Infinity ? "∞" : value.toFixed(1);
}

// One pixel of the canvas for each pixel of the image; the style sheet enlarges it.
function paint(canvas, image, side) {
  canvas.width = canvas.height = side;
  if (!image) return;
  const context = canvas.getContext("2d");
  const data = context.createImageData(side, side);
  image.pixels.forEach((intensity, place) => {
    data.data.fill(grey(intensity), 4 * place, 4 * place + 3);
    data.data[4 * place + 3] = 255;
  });
  context.putImageData(data, 0, 0);
}

function paintBoard() {
  const side = Math.round(board.clientWidth * window.devicePixelRatio);
  board.width = board.height = side;
  const context = board.getContext("2d");
  const {strokes, digit} = picture();
  if (digit !== null) {
    context.imageSmoothingEnabled = false;
    context.drawImage(element("original").querySelector("canvas"), 0, 0, side, side);
  }
  context.lineWidth = PEN * side;
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = "white";
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(stroke[0][0] * side, stroke[0][1] * side);
    for (const [x, y] of stroke) context.lineTo(x * side, y * side);
    context.stroke();
  }
  if (board.matches(":focus-visible")) paintPen(context, side);
}

function paintPen(context, side) {
  context.beginPath();
  context.arc(pen.x * side, pen.y * side, (PEN / 2) * side, 0, 2 * Math.PI);
  context.lineWidth = 2 * window.devicePixelRatio;
  context.strokeStyle = pen.down ? "#ff7a5c" : "#9a9da1";
  context.stroke();
}
