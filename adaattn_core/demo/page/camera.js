// A photo from the camera: by the device's own camera program on a phone, in a dialog of the page elsewhere.
import { PictureError } from "./pictures.js";

const $ = (id) => document.getElementById(id);

export class Camera {
  /** take(video): called with the video whose frame is the photo. */
  constructor(take) {
    $("snap").addEventListener("click", () => {
      if (!$("camera-view").videoWidth) return;
      const video = $("camera-view");
      const [width, height] = [video.videoWidth, video.videoHeight];
      const frame = Object.assign(document.createElement("canvas"), { width, height });
      frame.getContext("2d").drawImage(video, 0, 0);
      $("camera-dialog").close();
      take(frame);
    });
    $("camera-close").addEventListener("click", () => $("camera-dialog").close());
    $("camera-dialog").addEventListener("close", () => this.#stop());
  }

  async open() {
    if (matchMedia("(pointer: coarse)").matches) return $("camera-file").click();
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
    } catch (error) {
      throw new PictureError(`The camera cannot be used (${error.message ?? error.name}). Choose a photo instead.`);
    }
    $("camera-view").srcObject = this.stream;
    $("camera-dialog").showModal();
  }

  #stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    $("camera-view").srcObject = null;
  }
}
