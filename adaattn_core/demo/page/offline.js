// Where the host cannot send the headers that threads need, the service worker adds them, from the second load on; it
// also keeps the page for times without a connection.

const TRIED = "adaattn-loaded-again";
const PATIENCE_MS = 5000;

/** Registers the service worker; true if the page loads again to be under its care. */
export async function prepareOffline({ local }) {
  if (local || !navigator.serviceWorker) return false;
  try {
    await navigator.serviceWorker.register("service-worker.js");
    if (globalThis.crossOriginIsolated || sessionStorage.getItem(TRIED)) return false;
    const late = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
    await Promise.race([navigator.serviceWorker.ready, late]);
    sessionStorage.setItem(TRIED, "yes");
  } catch {
    return false; // private windows refuse both; the page works without
  }
  location.reload();
  return true;
}
