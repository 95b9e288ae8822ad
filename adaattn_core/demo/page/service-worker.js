// Keeps what the page has loaded for visits without a connection, and adds the two headers without which a browser runs
// no threads. For pages on a host that cannot send headers; `adaattn demo` sends them itself and needs no keeping.

const KEPT = "adaattn-VERSION_OF_THE_SITE";

self.addEventListener("activate", (event) => event.waitUntil((async () => {
  const names = (await caches.keys()).filter((name) => name.startsWith("adaattn-") && name !== KEPT);
  await Promise.all(names.map((name) => caches.delete(name)));
  await self.clients.claim();
})()));

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(self.registration.scope)) event.respondWith(answer(event.request));
});

/** From what is kept, else from the host; a page is always one version as a whole. */
async function answer(request) {
  const kept = await caches.open(KEPT);
  const known = await kept.match(request, { ignoreSearch: true });
  if (known) return known;
  const loaded = isolated(await fetch(request));
  if (loaded.status === 200) await kept.put(request, loaded.clone());
  return loaded;
}

function isolated(answer) {
  if (!answer.body) return answer;
  const headers = new Headers(answer.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers });
}
