"use strict";
/**
 * The service worker: keeps every file of one version of the site, so that the page works without a
 * network, and gives it the two headers that let wasm use threads where the host cannot send them.
 *
 * A new version of the site has another address for this script (`?v=`), so it is installed beside
 * the old one; old files go when it takes over.
 */
{
    const worker = self;
    const PREFIX = "gpt-edge ";
    const scope = worker.registration.scope;
    const name = `${PREFIX}${scope} ${new URL(worker.location.href).searchParams.get("v")}`;
    const isolated = {
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Resource-Policy": "same-origin",
    };
    const install = async () => {
        const cache = await caches.open(name);
        const list = await fetch(new URL("files.json", scope), { cache: "no-cache" });
        const files = (await list.json());
        const addresses = ["", "files.json", ...files].map((file) => new URL(file, scope).href);
        await cache.addAll(addresses.map((address) => new Request(address, { cache: "no-cache" })));
        await worker.skipWaiting();
    };
    const activate = async () => {
        for (const other of await caches.keys()) {
            if (other.startsWith(`${PREFIX}${scope} `) && other !== name)
                await caches.delete(other);
        }
        await worker.clients.claim();
    };
    const respond = async (request) => {
        const cache = await caches.open(name);
        const found = await cache.match(request, { ignoreSearch: true });
        // the browser keeps compiled code beside an answer that is passed on as it is, so the headers
        // are given to what needs them alone: documents and workers
        if (found !== undefined && !(request.mode === "navigate" || request.destination === "worker")) {
            return found;
        }
        const answer = found ?? (await fetch(request));
        if (answer.type === "opaque")
            return answer;
        const headers = new Headers(answer.headers);
        for (const [header, value] of Object.entries(isolated))
            headers.set(header, value);
        const { status, statusText } = answer;
        return new Response(answer.body, { status, statusText, headers });
    };
    worker.addEventListener("install", (event) => event.waitUntil(install()));
    worker.addEventListener("activate", (event) => event.waitUntil(activate()));
    worker.addEventListener("fetch", (event) => {
        const { request } = event;
        if (request.method === "GET" && request.url.startsWith(scope)) {
            event.respondWith(respond(request));
        }
    });
}
