// Pictures from files, examples and the camera, and their pixels at the size in which they are painted.
import { reducedSize, resized } from "./pixels.js";

export const MIN_SIDE = 16;
const LARGEST_SIDE = 1024; // short side that is kept of a photo: the largest size that the page paints
const OWN = new Map(); // numbers of pictures, so that no two have one key

/** A file that cannot be used. The message says what came and what is needed. */
export class PictureError extends Error {}

/** A picture from a file: {key, name, title, width, height, canvas, isTransparent}; width and height are the file's, the
 *  canvas has at most the largest size to paint, and is opaque. */
export async function readPicture(blob, name, title = name) {
  if (!blob.size) throw new PictureError(`${name} is empty. Choose another picture.`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    throw new PictureError(
      `${name} cannot be read as a picture: it is damaged, too large for this browser, or of a kind that the browser ` +
      "does not know. JPEG, PNG and WebP work.",
    );
  }
  try {
    return pictureOf(bitmap, name, title);
  } finally {
    bitmap.close();
  }
}

/** A picture from a bitmap or a video's frame. */
export function pictureOf(source, name, title = name) {
  const { width, height } = source;
  if (Math.min(width, height) < MIN_SIDE) {
    throw new PictureError(`${name} has ${width} x ${height} pixels; at least ${MIN_SIDE} x ${MIN_SIDE} are needed.`);
  }
  const kept = reducedSize({ width, height }, LARGEST_SIDE);
  const key = `${OWN.size + 1}`;
  OWN.set(key, name);
  const canvas = drawn(source, kept);
  return { key, name, title, width, height, canvas, isTransparent: onWhite(canvas) };
}

/** A canvas of a size with a source on it, halved step by step so that no pixel is skipped. */
function drawn(source, { width, height }) {
  let from = source;
  while (from.width >= 2 * width && from.height >= 2 * height && from.width > 64 && from.height > 64) {
    from = onCanvas(from, Math.max(width, Math.ceil(from.width / 2)), Math.max(height, Math.ceil(from.height / 2)));
  }
  return from.width === width && from.height === height && from !== source ? from : onCanvas(from, width, height);
}

function onCanvas(source, width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new PictureError(`there is no memory for a picture of ${width} x ${height} pixels.`);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, width, height);
  return canvas;
}

/** A picture reduced to a short side: {key, title, width, height, pixels}. */
export function reduced(picture, side) {
  const { canvas } = picture;
  const size = reducedSize(canvas, side);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return { key: `${picture.key}@${side}`, title: picture.title, ...size, pixels: resized(data, canvas, size) };
}

/** Puts a canvas on white; whether that shows. */
function onWhite(canvas) {
  const context = canvas.getContext("2d");
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  if (!data.some((value, index) => index % 4 === 3 && value < 255)) return false;
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  return true;
}
