// Files that a person chooses, drops or pastes: as the photo, or as the style.

const $ = (id) => document.getElementById(id);

/** use(role, blob, name) is called with each file; role is "photo" or "style". */
export function listenForFiles(use) {
  const chosen = (input, role) => $(input).addEventListener("change", () => {
    const [file] = $(input).files;
    if (file) use(role, file, file.name);
    $(input).value = ""; // or the same file could not be chosen again
  });
  chosen("photo-file", "photo");
  chosen("camera-file", "photo");
  chosen("style-file", "style");
  $("choose-photo").addEventListener("click", () => $("photo-file").click());
  $("choose-style").addEventListener("click", () => $("style-file").click());
  addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (file) use("photo", file, file.name);
  });
  listenForDrops(use);
}

/** A drop on the styles is a style, and anywhere else a photo. */
function listenForDrops(use) {
  const roleAt = (target) => (target.closest?.("[data-drop=style]") ? "style" : "photo");
  let depth = 0;
  const show = (role) => {
    if (role) document.body.dataset.dropping = role;
    else delete document.body.dataset.dropping;
  };
  addEventListener("dragenter", (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    depth++;
    show(roleAt(event.target));
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    show(roleAt(event.target));
  });
  addEventListener("dragleave", () => {
    depth = Math.max(depth - 1, 0);
    if (!depth) show(null);
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    show(null);
    const [file] = event.dataTransfer.files;
    if (file) use(roleAt(event.target), file, file.name);
  });
}
