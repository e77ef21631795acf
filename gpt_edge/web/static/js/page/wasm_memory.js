/**
 * How much memory wasm holds. onnxruntime keeps its own to itself, so the constructor remembers it;
 * this module is imported before onnxruntime.
 */
const memories = [];
const Plain = WebAssembly.Memory;
WebAssembly.Memory = class extends Plain {
    constructor(descriptor) {
        super(descriptor);
        memories.push(this);
    }
};
/** Bytes of all wasm memories; they only grow. */
export function memoryBytes() {
    return memories.reduce((sum, memory) => sum + memory.buffer.byteLength, 0);
}
