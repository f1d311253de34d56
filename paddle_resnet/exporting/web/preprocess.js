// The preprocessing of the exported model, step by step as `images/decode.py` does it with Pillow.

const PRECISION = 1 << 22; // Pillow's fixed-point weights of 8-bit images (Resample.c)

function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

// Return each output pixel's first input pixel and weights for the section [start, end) of a line: Pillow's triangle
// filter, which averages when shrinking. Its boxes are float32.
function weights(length, start, end, size) {
  const scale = Math.fround(end - start) / size;
  const support = Math.max(scale, 1);
  const slope = 1 / support;
  return Array.from({ length: size }, (_, place) => {
    const centre = start + (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(length, Math.trunc(centre + support + 0.5));
    const values = [];
    for (let pixel = first; pixel < last; pixel++) {
      values.push(Math.max(0, 1 - Math.abs((pixel - centre + 0.5) * slope)));
    }
    const sum = values.reduce((total, value) => total + value, 0);
    return { first, values: values.map((value) => Math.trunc((value / sum) * PRECISION + 0.5)) };
  });
}

const clip = (sum) => Math.min(255, Math.max(0, Math.floor((sum + PRECISION / 2) / PRECISION)));

// Resize a box of RGB pixels { data, width, height } to `size` x `size`: first along the rows, then down the columns.
// (Newer versions of Pillow begin with the columns of some tall pictures, which changes pixels by one level at most.)
function resizeBox({ data, width, height }, [left, top, right, bottom], size) {
  const columns = weights(width, left, right, size);
  const rows = weights(height, top, bottom, size);
  const firstRow = rows[0].first;
  const lastRow = rows[size - 1].first + rows[size - 1].values.length;
  const across = new Uint8Array((lastRow - firstRow) * size * 3);
  for (let y = firstRow; y < lastRow; y++) {
    columns.forEach(({ first, values }, x) => {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (let i = 0; i < values.length; i++) sum += values[i] * data[(y * width + first + i) * 3 + channel];
        across[((y - firstRow) * size + x) * 3 + channel] = clip(sum);
      }
    });
  }
  const result = new Uint8Array(size * size * 3);
  rows.forEach(({ first, values }, y) => {
    for (let x = 0; x < size * 3; x++) {
      let sum = 0;
      for (let i = 0; i < values.length; i++) sum += values[i] * across[(first - firstRow + i) * size * 3 + x];
      result[y * size * 3 + x] = clip(sum);
    }
  });
  return result;
}

// Resize the shorter side to `resize` and cut out the square centre of `size` pixels.
function resizeAndCrop(image, resize, size) {
  if (image.width === image.height && image.width === resize && resize === size) return Uint8Array.from(image.data);
  const shorter = Math.min(image.width, image.height);
  const [[left, right], [top, bottom]] = [image.width, image.height].map((length) => {
    const resized = Math.floor((resize * length) / shorter);
    const start = roundHalfEven((resized - resize) / 2) + roundHalfEven((resize - size) / 2);
    return [(start * length) / resized, Math.min(((start + size) * length) / resized, length)].map(Math.fround);
  });
  return resizeBox(image, [left, top, right, bottom], size);
}

// Return the RGB pixels of a canvas's RGBA: transparency becomes white.
function withoutAlpha(rgba, width, height) {
  const data = new Uint8Array(width * height * 3);
  for (let pixel = 0; pixel < width * height; pixel++) {
    const alpha = rgba[4 * pixel + 3] / 255;
    for (let channel = 0; channel < 3; channel++) {
      data[3 * pixel + channel] = Math.round(255 * (1 - alpha) + rgba[4 * pixel + channel] * alpha);
    }
  }
  return { data, width, height };
}

globalThis.preprocess = { resizeAndCrop, withoutAlpha };
