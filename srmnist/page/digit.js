"use strict";

// A drawing becomes an image like MNIST's, and a simple reader says which digit an image shows.
//
// A drawing is a list of strokes, a stroke a list of points [x, y] in fractions of the board's side.

const SIDE = 28; // height and width of an MNIST image
const BOX = 20; // height and width of the box into which MNIST's makers fitted each digit

// Width of the pen, in fractions of the board's side.
const PEN = 0.09;

// In MNIST a stroke is 2.5 pixels wide, and three quarters of the strokes are narrower than 3: ink divided by the
// length of the skeleton, measured on 3,000 training images. A digit that is drawn small is enlarged, and then its
// strokes get this width instead of a larger one.
const WIDEST = 3;

// From black to white MNIST's edges take this many pixels; the median, measured on the same images.
const EDGE = 1.1;

// A drawing smaller than this fraction of the board is a dot; it is not enlarged to the whole box.
const SMALLEST = 0.1;

// What MNIST's makers would have made of a drawing: fitted into 20×20 pixels with its shape kept, in grey values, and
// moved in 28×28 by whole pixels until its centre of mass is in the middle (http://yann.lecun.com/exdb/mnist/).
// Returns null where there is no stroke.
function likeMnist(strokes) {
  if (strokes.length === 0) return null;
  const box = rasterise(strokes);
  const [column, row] = centreOfMass(box);
  // MNIST's centres of mass are in the middle of pixel 14, give or take half a pixel.
  const left = within(Math.round(SIDE / 2 - column), 0, SIDE - BOX);
  const top = within(Math.round(SIDE / 2 - row), 0, SIDE - BOX);
  const pixels = new Float64Array(SIDE * SIDE);
  for (let y = 0; y < BOX; y++) {
    pixels.set(box.subarray(y * BOX, (y + 1) * BOX), (top + y) * SIDE + left);
  }
  return {height: SIDE, width: SIDE, pixels};
}

// The drawing in a box of 20×20 pixels. A pixel's value depends on the distance of its centre from the nearest stroke.
function rasterise(strokes) {
  const {scale, width, left, top} = fit(strokes);
  const distances = new Float64Array(BOX * BOX).fill(Infinity);
  for (const stroke of strokes) {
    const points = stroke.map(([x, y]) => [(x - left) * scale, (y - top) * scale]);
    points.forEach((point, index) => approach(distances, points[Math.max(index - 1, 0)], point, (width + EDGE) / 2));
  }
  return distances.map((distance) => within((width / 2 - distance) / EDGE + 0.5, 0, 1));
}

// Scale, stroke width and upper left corner with which a drawing, strokes' width included, fills the box.
function fit(strokes) {
  const points = strokes.flat();
  const [minX, maxX] = range(points.map((point) => point[0]));
  const [minY, maxY] = range(points.map((point) => point[1]));
  const extent = Math.max(maxX - minX, maxY - minY);
  let scale = BOX / (extent + PEN);
  let width = PEN * scale;
  if (width > WIDEST) {
    width = WIDEST;
    scale = (BOX - WIDEST) / Math.max(extent, SMALLEST);
  }
  const margin = width / 2 / scale;
  // What does not fill the box is in its middle.
  const spareX = BOX / scale - (maxX - minX + 2 * margin);
  const spareY = BOX / scale - (maxY - minY + 2 * margin);
  return {scale, width, left: minX - margin - spareX / 2, top: minY - margin - spareY / 2};
}

// Lower the distances of the pixels that are closer than `reach` to the line from `start` to `end`.
function approach(distances, [startX, startY], [endX, endY], reach) {
  const alongX = endX - startX;
  const alongY = endY - startY;
  const squaredLength = alongX * alongX + alongY * alongY;
  const firstX = Math.max(Math.floor(Math.min(startX, endX) - reach), 0);
  const lastX = Math.min(Math.ceil(Math.max(startX, endX) + reach), BOX - 1);
  const firstY = Math.max(Math.floor(Math.min(startY, endY) - reach), 0);
  const lastY = Math.min(Math.ceil(Math.max(startY, endY) + reach), BOX - 1);
  for (let row = firstY; row <= lastY; row++) {
    for (let column = firstX; column <= lastX; column++) {
      const x = column + 0.5 - startX;
      const y = row + 0.5 - startY;
      const part = squaredLength > 0 ? within((x * alongX + y * alongY) / squaredLength, 0, 1) : 0;
      const distance = Math.hypot(x - part * alongX, y - part * alongY);
      const place = row * BOX + column;
      if (distance < distances[place]) distances[place] = distance;
    }
  }
}

function centreOfMass(box) {
  let mass = 0, momentX = 0, momentY = 0;
  box.forEach((value, place) => {
    mass += value;
    momentX += value * (place % BOX);
    momentY += value * Math.floor(place / BOX);
  });
  return [momentX / mass, momentY / mass];
}

function range(values) {
  return values.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
}

function within(value, least, most) {
  return Math.min(Math.max(value, least), most);
}

// The reader's prototypes as srmnist/page/reader.py has made them: as many for each digit, each of 14×14 pixels of
// 4 bits, two in a byte, the first in the upper half.
function readPrototypes(base64) {
  const prototypes = [];
  const bytes = readBytes(base64);
  const size = (SIDE / 2) ** 2;
  for (let start = 0; start < bytes.length; start += size / 2) {
    prototypes.push(Uint8Array.from({length: size}, (_, place) => {
      const byte = bytes[start + (place >> 1)];
      return place % 2 ? byte & 15 : byte >> 4;
    }));
  }
  return prototypes;
}

// Which digit an image of 28×28 shows: the digit of the prototype that differs least.
function read(prototypes, image) {
  const small = shrinkForReader(image);
  let best = 0, least = Infinity;
  prototypes.forEach((prototype, number) => {
    let difference = 0;
    for (let place = 0; place < small.length; place++) difference += (prototype[place] - small[place]) ** 2;
    if (difference < least) {
      least = difference;
      best = number;
    }
  });
  return Math.floor((10 * best) / prototypes.length);
}

// Means of 2×2 pixels in 16 steps, computed in whole numbers as srmnist/page/reader.py does.
function shrinkForReader({pixels}) {
  const half = SIDE / 2;
  return Uint8Array.from({length: half * half}, (_, place) => {
    const corner = 2 * SIDE * Math.floor(place / half) + 2 * (place % half);
    let sum = 0;
    for (const other of [0, 1, SIDE, SIDE + 1]) sum += grey(pixels[corner + other]);
    return Math.floor((15 * sum + 510) / 1020);
  });
}

// An intensity as a grey value from 0 to 255.
function grey(intensity) {
  return Math.floor(255 * intensity + 0.5);
}
