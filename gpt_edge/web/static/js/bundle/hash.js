/** SHA-256 through the platform. */
import { GPTEdgeError } from "../errors.js";
/** The SHA-256 of `data` as 64 lowercase hex digits. Throws GPTEdgeError where there is no WebCrypto. */
export async function sha256(data) {
    const subtle = globalThis.crypto?.subtle;
    if (subtle === undefined) {
        throw new GPTEdgeError("this page cannot check its files: browsers offer SHA-256 to secure pages alone", "open it by https, or from localhost");
    }
    const digest = new Uint8Array(await subtle.digest("SHA-256", data));
    return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
