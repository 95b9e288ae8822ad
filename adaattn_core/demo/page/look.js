// The attention viewer of the node, with data that the page's worker has computed.
import { View } from "./viewer/attention_data.mjs";
import { AttentionViewer } from "./viewer/attention_viewer.mjs";
import { wordsOf } from "./viewer/attention_words.mjs";

let viewer;

/** Shows in an element where the points of a job's content look in its style. */
export async function showAttention(place, painter, { content, style }, levels) {
  if (!viewer) {
    viewer = new AttentionViewer(wordsOf("en"));
    viewer.element.style.height = "100%";
    place.append(viewer.element);
  }
  viewer.say("loading");
  const { description, tensors } = await painter.attend(content, style, levels);
  const pictures = { content: await fileOf(content), style: await fileOf(style) };
  viewer.show(new View(description, (name) => tensors[name] ?? pictures[name]));
  viewer.setPoint(0.5, 0.5);
}

/** Pixels as a JPEG file, which is what the viewer shows. */
async function fileOf({ width, height, pixels }) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.88));
  return new Uint8Array(await blob.arrayBuffer());
}
