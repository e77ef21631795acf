/**
 * Starting onnxruntime before there is a model: a third of a second of compiling that can pass while
 * files are fetched and checked.
 */
/** An ONNX model of one node: y = Identity(x), float32 [1]. */
const IDENTITY = "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a02080162" +
    "0f0a0179120a0a08080112040a0208014202100d";
/** Start the runtime. What goes wrong here goes wrong again with the model, and is told then. */
export async function warmUp({ ort, options }) {
    const bytes = IDENTITY.match(/../g).map((pair) => Number.parseInt(pair, 16));
    try {
        const session = await ort.InferenceSession.create(Uint8Array.from(bytes), options);
        await session.release();
    }
    catch {
        // see above
    }
}
