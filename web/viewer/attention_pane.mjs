// One picture of the attention viewer: the picture, a layer of colours on its grid, and lines on top. The browser
// scales all three, so that they are sharp at any zoom.

const SVG = "http://www.w3.org/2000/svg";
const DIMMEST = 0.8;
const SHARP = [0, 34, 78]; // cividis, which people with any colour vision can read
const FLAT = [254, 232, 56];

/** An element with attributes and children; a child that is a string becomes text. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export class Pane {
  /** on: {hover(x, y), leave(), pick(x, y), key(event)}, places from 0 to 1. */
  constructor(name, on) {
    this.image = element("img", { alt: "", draggable: "false" });
    this.layer = element("canvas");
    this.lines = shape("svg", { "aria-hidden": "true", preserveAspectRatio: "none" });
    this.root = element("div", { class: "pane", tabindex: "0", role: "application", "data-pane": name });
    this.root.append(this.image, this.layer, this.lines);
    this.frame = element("div", { class: "frame" }, this.root);
    this.#listen(on);
  }

  #listen(on) {
    const place = (event) => {
      const box = this.root.getBoundingClientRect();
      const share = (value) => Math.min(Math.max(value, 0), 1);
      return [share((event.clientX - box.left) / box.width), share((event.clientY - box.top) / box.height)];
    };
    let start = null;
    this.root.addEventListener("pointermove", (event) => on.hover(...place(event)));
    this.root.addEventListener("pointerleave", () => on.leave());
    this.root.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.stopPropagation(); // or the node would be dragged
      this.root.focus({ preventScroll: true });
      start = place(event);
      on.hover(...start);
    });
    this.root.addEventListener("pointerup", (event) => {
      const end = place(event);
      if (event.button === 0 && start && Math.hypot(end[0] - start[0], end[1] - start[1]) < 0.03) on.pick(...end);
      start = null;
    });
    this.root.addEventListener("keydown", (event) => {
      if (on.key(event)) {
        event.preventDefault();
        event.stopPropagation(); // the keys of the viewer are not the canvas's
      }
    });
  }

  /** side: {width, height, rows, columns, picture}. */
  show(side) {
    this.clear();
    this.side = side;
    this.address = URL.createObjectURL(new Blob([side.picture], { type: "image/jpeg" }));
    this.image.src = this.address;
    this.root.style.setProperty("--shape", side.width / side.height);
    this.layer.width = side.columns;
    this.layer.height = side.rows;
    this.lines.setAttribute("viewBox", `0 0 ${side.width} ${side.height}`);
  }

  clear() {
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = undefined;
    this.image.removeAttribute("src");
  }

  /** Darken the picture where values, 0 to 1 on its grid, are small. */
  dim(values) {
    this.#paint(values, (value) => [0, 0, 0, 255 * DIMMEST * (1 - value)]);
  }

  /** Colour the picture by values from low to high. */
  tint(values, low, high) {
    this.#paint(values, (value) => {
      const share = (value - low) / Math.max(high - low, 1e-9);
      return [...SHARP.map((from, index) => from + share * (FLAT[index] - from)), 255 * 0.62];
    });
  }

  /** The picture as it is. */
  bare() {
    this.layer.getContext("2d").clearRect(0, 0, this.layer.width, this.layer.height);
  }

  #paint(values, color) {
    const context = this.layer.getContext("2d");
    const colors = context.createImageData(this.layer.width, this.layer.height);
    values.forEach((value, index) => colors.data.set(color(value), 4 * index));
    context.putImageData(colors, 0, 0);
  }

  // Lines, each in its colour over a dark one, so that it shows on any picture

  erase() {
    this.lines.replaceChildren();
  }

  #draw(name, attributes, color, width = 2, dashes = "none") {
    const common = { ...attributes, fill: "none", "vector-effect": "non-scaling-stroke" };
    this.lines.append(
      shape(name, { ...common, stroke: "#000", "stroke-opacity": 0.7, "stroke-width": width + 2 }),
      shape(name, { ...common, stroke: color, "stroke-width": width, "stroke-dasharray": dashes }),
    );
  }

  /** The edge around rectangles of the grid; neighbours have one edge together. */
  outline(indices, color) {
    const { rows, columns, width, height } = this.side;
    const inside = new Set(indices);
    const [w, h] = [width / columns, height / rows];
    const path = indices.flatMap((index) => {
      const [row, column] = [Math.floor(index / columns), index % columns];
      const [x, y] = [column * w, row * h];
      const edges = [];
      if (!inside.has(index - columns)) edges.push(`M${x} ${y}h${w}`);
      if (!inside.has(index + columns)) edges.push(`M${x} ${y + h}h${w}`);
      if (!column || !inside.has(index - 1)) edges.push(`M${x} ${y}v${h}`);
      if (column === columns - 1 || !inside.has(index + 1)) edges.push(`M${x + w} ${y}v${h}`);
      return edges;
    });
    this.#draw("path", { d: path.join("") }, color);
  }

  /** The square of pixels that the encoder sees at a point: its receptive field on a level. */
  field(x, y, level, color) {
    const center = (share, pixels) =>
      (Math.floor(Math.min(share * pixels, pixels - 1) / level.stride) + 0.5) * level.stride;
    const side = level.receptive_field;
    const [left, top] = [center(x, this.side.width) - side / 2, center(y, this.side.height) - side / 2];
    this.#draw("rect", { x: left, y: top, width: side, height: side, "data-field": level.name }, color, 1.5, "4 3");
  }

  /** A point, with its number if it is pinned. */
  point(x, y, color, number = "") {
    const unit = Math.max(this.side.width, this.side.height) / 100;
    const [cx, cy] = [x * this.side.width, y * this.side.height];
    this.#draw("circle", { cx, cy, r: 1.3 * unit }, color, 2.5);
    if (!number) return;
    const text = shape("text", {
      x: cx + 2 * unit, y: cy - 1.5 * unit, fill: color, stroke: "#000", "stroke-width": 0.8 * unit,
      "paint-order": "stroke", "font-size": 6 * unit, "font-weight": "bold", "data-pin": number,
    });
    text.textContent = number;
    this.lines.append(text);
  }
}
