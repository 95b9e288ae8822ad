// The picture on the page: the photo, the painted one over it up to a line that can be moved, and the mask.

const FAR = 5;
const STEP = 0.02; // of the width: how far an arrow key moves the brush
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const SHADE = "rgba(20, 20, 30, 0.72)";

export class Easel {
  /** root: the element with the canvases. on.mask(): the mask has changed. */
  constructor(root, on) {
    this.root = root;
    this.on = on;
    this.before = root.querySelector("#before");
    this.after = root.querySelector("#after");
    this.shade = root.querySelector("#mask");
    this.compare = root.querySelector("#compare");
    this.marks = [this.compare, ...root.querySelectorAll("#split, .corner")];
    this.brush = { size: 0.12, erases: false };
    this.cursor = null;
    this.compare.addEventListener("input", () => this.#split());
    this.#listen();
  }

  /** Shows a photo, {width, height, pixels}, without a painted one. isOther: not the last one in another size. */
  show(content, isOther) {
    this.root.style.setProperty("--shape", content.width / content.height);
    put(this.before, content);
    this.after.width = content.width;
    this.after.height = content.height;
    this.after.hidden = true;
    this.isPainted = false;
    if (isOther) this.isMarked = false; // the mask was that of the photo before
    this.#newMask(content);
    this.#marks();
  }

  showPainted(result) {
    put(this.after, result);
    this.after.hidden = false;
    this.isPainted = true;
    this.#marks();
    this.#split();
  }

  /** Whether brushing is on, and whether the mask or the picture is to be seen. */
  setMasking(isOn, isSeen) {
    this.shade.hidden = !isOn || isSeen;
    this.#marks();
  }

  #marks() {
    for (const mark of this.marks) mark.hidden = !this.isPainted || !this.shade.hidden;
  }

  #split() {
    this.root.style.setProperty("--split", `${this.compare.value}%`);
    this.compare.setAttribute("aria-valuetext", `${this.compare.value} % photo, ${100 - this.compare.value} % painted`);
  }

  // The mask: opaque where it is brushed. What is not is shaded on the page

  #newMask({ width, height }) {
    const old = this.isMarked ? this.marked : null;
    this.marked = Object.assign(document.createElement("canvas"), { width, height });
    this.shade.width = width;
    this.shade.height = height;
    if (old) this.#context().drawImage(old, 0, 0, width, height);
    this.#showMask();
  }

  #context() {
    return this.marked.getContext("2d", { willReadFrequently: true });
  }

  #showMask() {
    const { width, height } = this.shade;
    const context = this.shade.getContext("2d");
    context.globalCompositeOperation = "copy";
    context.fillStyle = SHADE;
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = "destination-out";
    context.drawImage(this.marked, 0, 0);
    if (!this.cursor) return;
    context.globalCompositeOperation = "source-over";
    context.strokeStyle = "#fff";
    context.lineWidth = Math.max(1, width / 300);
    context.beginPath();
    context.arc(this.cursor.x * width, this.cursor.y * height, this.#width() / 2, 0, 7);
    context.stroke();
  }

  #width() {
    return this.brush.size * Math.min(this.shade.width, this.shade.height);
  }

  /** Nothing is brushed. */
  clear() {
    this.#context().clearRect(0, 0, this.marked.width, this.marked.height);
    this.#changed(false);
  }

  /** Brushed is what was not. */
  invert() {
    const image = this.#context().getImageData(0, 0, this.marked.width, this.marked.height);
    for (let index = 3; index < image.data.length; index += 4) image.data[index] = 255 - image.data[index];
    this.#context().putImageData(image, 0, 0);
    this.#changed(true);
  }

  #changed(isMarked) {
    this.isMarked = isMarked;
    this.#showMask();
    this.on.mask();
  }

  /** For each pixel 255 where it is brushed, 0 where the photo stays; null where nothing is brushed. */
  get mask() {
    if (!this.isMarked) return null;
    const { data } = this.#context().getImageData(0, 0, this.marked.width, this.marked.height);
    return Uint8Array.from({ length: data.length / 4 }, (_, index) => data[4 * index + 3]);
  }

  #stroke(from, to, erases = this.brush.erases) {
    const { width, height } = this.marked;
    const context = this.#context();
    context.globalCompositeOperation = erases ? "destination-out" : "source-over";
    context.lineWidth = this.#width();
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(from.x * width, from.y * height);
    context.lineTo(to.x * width, to.y * height + 0.01); // a line of no length is not drawn
    context.stroke();
    this.#showMask();
  }

  #listen() {
    let last = null;
    const place = (event) => {
      const box = this.shade.getBoundingClientRect();
      return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
    };
    this.shade.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.shade.setPointerCapture(event.pointerId);
      this.cursor = null;
      last = place(event);
      this.#stroke(last, last);
    });
    this.shade.addEventListener("pointermove", (event) => {
      if (!last) return;
      const next = place(event);
      this.#stroke(last, next);
      last = next;
    });
    const end = () => {
      if (last) this.#changed(true);
      last = null;
    };
    this.shade.addEventListener("pointerup", end);
    this.shade.addEventListener("pointercancel", end);
    this.shade.addEventListener("keydown", (event) => this.#key(event));
    this.shade.addEventListener("blur", () => this.#moveTo(null));
  }

  /** The brush of the keyboard; none while a pointer paints. */
  #moveTo(place) {
    this.cursor = place;
    this.#showMask();
  }

  #key(event) {
    const { x, y } = this.cursor ?? { x: 0.5, y: 0.5 };
    if (event.key in ARROWS) {
      const step = STEP * (event.shiftKey ? FAR : 1);
      const moved = (from, by) => Math.min(Math.max(from + step * by, 0), 1);
      this.#moveTo({ x: moved(x, ARROWS[event.key][0]), y: moved(y, ARROWS[event.key][1]) });
    } else if (event.key === " " || event.key === "Enter" || event.key === "Delete") {
      this.#stroke({ x, y }, { x, y }, event.key === "Delete" || this.brush.erases);
      this.#changed(true);
    } else {
      return;
    }
    event.preventDefault();
  }
}

function put(canvas, { width, height, pixels }) {
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels), width, height), 0, 0);
}
