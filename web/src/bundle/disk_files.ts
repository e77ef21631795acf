/** Files of a bundle on a disk, for Node. */

import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { BundleError } from "../errors.js";
import type { FileReader } from "./bundle.js";

/** A reader of a folder. */
export function diskFiles(folder: string): FileReader {
  return async (name, size, onBytes) => {
    const path = join(folder, name);
    try {
      const found = (await stat(path)).size;
      if (size !== null && found !== size) {
        throw new BundleError(
          `${path} has ${found} bytes, the manifest says ${size}`,
          "copy the bundle again",
        );
      }
      const content = await readFile(path);
      onBytes(content.length);
      return new Uint8Array(content.buffer as ArrayBuffer, content.byteOffset, content.length);
    } catch (error) {
      if (error instanceof BundleError) throw error;
      throw new BundleError(
        `cannot read ${path}: ${(error as Error).message}`,
        "name a folder that gpt-edge export wrote",
      );
    }
  };
}
