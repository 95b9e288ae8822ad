// The look of the attention viewer. Colours are those of ComfyUI's theme where it runs there, of the system elsewhere.
export const STYLE = `
:host { display: flex; flex-direction: column; box-sizing: border-box; min-height: 280px; container-type: inline-size;
  color: var(--input-text, CanvasText); font: 12px/1.35 system-ui, sans-serif; }
[hidden] { display: none !important; }
.body { display: flex; flex-direction: column; gap: 6px; flex: 1 1 auto; min-height: 0; min-width: 0; }
.bar { display: flex; flex-wrap: wrap; gap: 4px; align-items: center; }
.tabs, .chips { display: flex; flex-wrap: wrap; gap: 4px; }
.chips { min-height: 24px; align-items: center; }
.off { visibility: hidden; }
button { font: inherit; color: inherit; background: var(--comfy-input-bg, ButtonFace); cursor: pointer;
  border: 1px solid var(--border-color, GrayText); border-radius: 4px; padding: 2px 7px; }
button[aria-pressed="true"] { background: var(--input-text, CanvasText); color: var(--comfy-input-bg, Canvas); }
button.chip { border: 2px solid var(--pin); font-weight: bold; padding: 1px 6px; }
button:focus-visible, .pane:focus-visible { outline: 3px solid #3b8eea; outline-offset: 2px; }
.panes { display: flex; gap: 8px; flex: 1 1 0; min-height: 0; }
.frame { flex: 1 1 0; min-width: 0; min-height: 0; container-type: size; display: grid; place-items: start center; }
.pane { position: relative; width: min(100cqw, 100cqh * var(--shape, 1)); aspect-ratio: var(--shape, 1);
  cursor: crosshair; touch-action: none; user-select: none; background: #000; }
.pane > * { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; }
.legend { display: inline-flex; gap: 5px; align-items: center; }
.scale { width: 48px; height: 10px; background: linear-gradient(90deg, #00224e, #7d7c78, #fee838); }
.status { margin: 0; min-height: 2.7em; }
.live { position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%); }
.message { flex: 1 1 auto; min-height: 280px; display: flex; flex-direction: column; gap: 8px; align-items: center;
  justify-content: center; text-align: center; }
.message p { margin: 0; max-width: 40em; }
@container (max-width: 330px) { .panes { flex-direction: column; } }
`;
