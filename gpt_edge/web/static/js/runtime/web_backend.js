/** onnxruntime-web's wasm build: the one whose operators run every graph of gpt-edge. */
import { hasConstantNodes } from "../bundle/constant_nodes.js";
const MAX_THREADS = 4;
/**
 * threads: null takes half of the processors, at most 4, where the page is cross-origin isolated,
 * and one elsewhere.
 */
export function webBackend(ort, threads = null) {
    const isIsolated = globalThis.crossOriginIsolated === true;
    const half = Math.ceil((globalThis.navigator?.hardwareConcurrency ?? 1) / 2);
    ort.env.wasm.numThreads = threads ?? (isIsolated ? Math.min(half, MAX_THREADS) : 1);
    ort.env.logLevel = "error";
    return {
        ort,
        options: {
            executionProviders: ["wasm"],
            // it grows in powers of two and keeps what the longest prompt took
            enableCpuMemArena: false,
            // patterns are kept per input shape, and every step has its own
            enableMemPattern: false,
            logSeverityLevel: 3,
            // else weights that DequantizeLinear unpacks would be unpacked at every call
            extra: { session: { disable_quant_qdq: "1" } },
        },
        // the edge graph has its fused operators already: a search for more takes longer than to start
        optionsFor: async (model, graph) => graph === "edge" && !hasConstantNodes(model) ? { graphOptimizationLevel: "disabled" } : {},
        breathe,
        writesInPlace: false,
    };
}
/**
 * One turn of the event loop. A call in wasm blocks its thread and then goes on as a microtask, so
 * without this neither a click nor a message would get through until the text has ended; a timer
 * would wait for 4 ms.
 */
function breathe() {
    return new Promise((resolve) => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => {
            port1.close();
            resolve();
        };
        port2.postMessage(null);
    });
}
