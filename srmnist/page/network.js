"use strict";

// The article's degradation and network, and the PSNR. They depend on nothing but their arguments.
//
// An image is {height, width, pixels}: pixels is a Float64Array, row after row, of intensities from 0 (black) to
// 1 (white). Numbers are float64 because that is what JavaScript computes with; Chainer computes with float32.

// Shrink an image to size×size, then enlarge it back: what the network is given (srmnist/degradation.py).
function degrade(image, size) {
  return resize(resize(image, size, size), image.height, image.width);
}

// Bilinear interpolation with the corners aligned, as chainer.functions.resize_images computes it.
function resize(image, height, width) {
  const rows = samples(image.height, height);
  const columns = samples(image.width, width);
  const pixels = new Float64Array(height * width);
  for (let y = 0; y < height; y++) {
    const upper = rows[y].first * image.width;
    const lower = rows[y].second * image.width;
    const down = rows[y].weight;
    for (let x = 0; x < width; x++) {
      const {first, second, weight} = columns[x];
      const above = (1 - weight) * image.pixels[upper + first] + weight * image.pixels[upper + second];
      const below = (1 - weight) * image.pixels[lower + first] + weight * image.pixels[lower + second];
      pixels[y * width + x] = (1 - down) * above + down * below;
    }
  }
  return {height, width, pixels};
}

// For each of `count` points spread evenly from the first to the last of `length` pixels: its two neighbours, and
// the weight of the second one.
function samples(length, count) {
  return Array.from({length: count}, (_, index) => {
    const place = count > 1 ? (index * (length - 1)) / (count - 1) : 0;
    const first = Math.floor(place);
    return {first, second: Math.min(first + 1, length - 1), weight: place - first};
  });
}

// Restore a degraded image of any size: CNNAE.forward of srmnist/model.py in evaluation mode.
//
// `layers` are the four convolutions, see readLayers. Batch normalisation is part of their weights already.
function restore(layers, image) {
  const {height, width} = image;
  let planes = [padded(image.pixels, height, width)];
  layers.forEach((layer, number) => {
    const last = number === layers.length - 1;
    planes = convolve(layer, planes, height, width);
    planes.forEach((plane) => activate(plane, height, width, last ? sigmoid : relu));
  });
  return {height, width, pixels: unpadded(planes[0], height, width)};
}

// Peak signal-to-noise ratio in dB of an image that should be `original`; Infinity where both are equal.
function psnr(image, original) {
  let sum = 0;
  for (let place = 0; place < original.pixels.length; place++) {
    sum += (image.pixels[place] - original.pixels[place]) ** 2;
  }
  return -10 * Math.log10(sum / original.pixels.length);
}

// The convolutions as srmnist/page/export.py has written them: for each one its weights (outputs, inputs, 3, 3), then
// its biases, as little-endian float32 in base64. `channels` are the numbers of planes: [1, 16, 32, 64, 1].
function readLayers(channels, base64) {
  const bytes = readBytes(base64);
  const view = new DataView(bytes.buffer);
  let place = 0;
  const take = (count) => Float64Array.from({length: count}, () => view.getFloat32(4 * place++, true));
  return channels.slice(1).map((outputs, number) => {
    const inputs = channels[number];
    return {inputs, outputs, weights: take(9 * inputs * outputs), biases: take(outputs)};
  });
}

function readBytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

const relu = (value) => (value > 0 ? value : 0);
const sigmoid = (value) => 1 / (1 + Math.exp(-value));

// A 3×3 convolution of planes that have a border of zeros one pixel wide. The border of the result is not zero.
//
// The innermost loop goes along a row and holds the nine weights and the 3×3 window in local variables: the compiler
// of the browser keeps these in registers, and each step reads three new pixels only.
function convolve({inputs, outputs, weights, biases}, planes, height, width) {
  const stride = width + 2;
  const result = [];
  for (let output = 0; output < outputs; output++) {
    const sums = new Float64Array((height + 2) * stride).fill(biases[output]);
    for (let input = 0; input < inputs; input++) {
      accumulate(sums, planes[input], weights, 9 * (output * inputs + input), height, width);
    }
    result.push(sums);
  }
  return result;
}

// Add to `sums` the convolution of one plane with the nine weights that start at `at`.
function accumulate(sums, plane, weights, at, height, width) {
  const stride = width + 2;
  const w0 = weights[at], w1 = weights[at + 1], w2 = weights[at + 2];
  const w3 = weights[at + 3], w4 = weights[at + 4], w5 = weights[at + 5];
  const w6 = weights[at + 6], w7 = weights[at + 7], w8 = weights[at + 8];
  for (let y = 0; y < height; y++) {
    const top = y * stride;
    const middle = top + stride;
    const bottom = middle + stride;
    let a0 = plane[top], a1 = plane[top + 1];
    let b0 = plane[middle], b1 = plane[middle + 1];
    let c0 = plane[bottom], c1 = plane[bottom + 1];
    const end = middle + 1 + width;
    for (let place = middle + 1; place < end; place++) {
      const a2 = plane[place - stride + 1], b2 = plane[place + 1], c2 = plane[place + stride + 1];
      sums[place] += a0 * w0 + a1 * w1 + a2 * w2 + b0 * w3 + b1 * w4 + b2 * w5 + c0 * w6 + c1 * w7 + c2 * w8;
      a0 = a1; a1 = a2;
      b0 = b1; b1 = b2;
      c0 = c1; c1 = c2;
    }
  }
}

function activate(plane, height, width, activation) {
  const stride = width + 2;
  plane.fill(0, 0, stride);
  plane.fill(0, (height + 1) * stride);
  for (let y = 1; y <= height; y++) {
    plane[y * stride] = 0;
    plane[y * stride + width + 1] = 0;
    for (let place = y * stride + 1; place <= y * stride + width; place++) plane[place] = activation(plane[place]);
  }
}

function padded(pixels, height, width) {
  const plane = new Float64Array((height + 2) * (width + 2));
  for (let y = 0; y < height; y++) {
    plane.set(pixels.subarray(y * width, (y + 1) * width), (y + 1) * (width + 2) + 1);
  }
  return plane;
}

function unpadded(plane, height, width) {
  const pixels = new Float64Array(height * width);
  for (let y = 0; y < height; y++) {
    const start = (y + 1) * (width + 2) + 1;
    pixels.set(plane.subarray(start, start + width), y * width);
  }
  return pixels;
}
