/** Files of a bundle over HTTP, with progress as their bytes arrive. */

import { BundleError } from "../errors.js";
import type { FileReader } from "./bundle.js";

const MAX_UNKNOWN = 1 << 20; // bytes of a file whose size nobody said: the manifest

/** A reader of the folder at `url`, which may end with a slash or not. */
export function fetchFiles(url: string): FileReader {
  const folder = url.replace(/\/+$/, "");
  return async (name, size, onBytes) => {
    const address = `${folder}/${name}`;
    let answer: Response;
    try {
      answer = await fetch(address);
    } catch (error) {
      throw new BundleError(`cannot fetch ${address}: ${(error as Error).message}`);
    }
    if (!answer.ok || answer.body === null) {
      throw new BundleError(`cannot fetch ${address}: the server answered ${answer.status}`);
    }
    return collect(answer.body, size, address, onBytes);
  };
}

async function collect(
  body: ReadableStream<Uint8Array>,
  size: number | null,
  address: string,
  onBytes: (loaded: number) => void,
): Promise<Uint8Array<ArrayBuffer>> {
  let content = new Uint8Array(size ?? MAX_UNKNOWN);
  let loaded = 0;
  const reader = body.getReader();
  for (;;) {
    const { value, done } = await reader.read().catch((error: unknown) => {
      throw new BundleError(`${address} broke off after ${loaded} bytes: ${(error as Error).message}`);
    });
    if (done) break;
    if (loaded + value.length > content.length) {
      void reader.cancel();
      throw new BundleError(`${address} has more than the ${content.length} bytes expected`);
    }
    content.set(value, loaded);
    loaded += value.length;
    onBytes(loaded);
  }
  if (loaded < content.length) content = content.slice(0, loaded);
  return content;
}
