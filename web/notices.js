// Shows what a node has to say about a run that succeeded, for example that its mask was empty.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const SECONDS = 12;

app.registerExtension({
  name: "adaattnstyletransfer.Notices",
  setup() {
    api.addEventListener("executed", ({ detail }) => {
      for (const line of detail?.output?.adaattn_notices ?? []) {
        app.extensionManager.toast.add({ severity: "info", summary: "AdaAttN", detail: line, life: SECONDS * 1000 });
      }
    });
  },
});
