/**
 * onnxruntime-node. x86 processors without VNNI add two 8-bit products in 16 bits, which saturates
 * (onnxruntime#14642): no flag says so, so one product is computed and looked at, as
 * `gpt_edge/runtime/ort_session.py` does.
 */

import type { Backend, Ort } from "./ort.js";

const DEPTH = 4;
const WIDTH = 16;
// An ONNX model of one node: y int32 [M, 16] = MatMulInteger(a uint8 [M, 4], b int8 [4, 16]), b
// being 127 everywhere.
const PROBE =
  "080812003a96010a180a01610a0162120179220d4d61744d756c496e74656765721201702a4b0804081010034201624a40" +
  "7f".repeat(DEPTH * WIDTH) +
  "5a140a0161120f0a0d080212090a0312014d0a02080462140a0179120f0a0d080612090a0312014d0a02081042040a00100d";
// weights that DequantizeLinear unpacks are unpacked once
const ONCE = { disable_quant_qdq: "1" };
// signed weights become unsigned; without the second option a block's zero points are lost
const GUARD = { x64quantprecision: "1", qdqisint8allowed: "1" };

/** threads: null takes onnxruntime's own choice. */
export function nodeBackend(ort: Ort, threads: number | null = null): Backend {
  let saturates: Promise<boolean> | null = null;
  return {
    ort,
    options: {
      executionProviders: ["cpu"],
      enableCpuMemArena: false,
      enableMemPattern: false,
      logSeverityLevel: 4,
      extra: { session: ONCE },
      ...(threads === null ? {} : { intraOpNumThreads: threads }),
    },
    async optionsFor(model) {
      if (!hasIntegerProducts(model)) return {};
      saturates ??= productsSaturate(ort);
      return (await saturates) ? { extra: { session: { ...ONCE, ...GUARD } } } : {};
    },
    breathe: () => Promise.resolve(), // a call has a thread of its own
    writesInPlace: true,
  };
}

/** Does a graph name an operator that multiplies 8-bit numbers as integers? */
function hasIntegerProducts(model: Uint8Array): boolean {
  const text = new TextDecoder("latin1").decode(model);
  return ["MatMulInteger", "MatMulNBits", "QLinear", "QGemm"].some((op) => text.includes(op));
}

async function productsSaturate(ort: Ort): Promise<boolean> {
  const bytes = Uint8Array.from(PROBE.match(/../g)!, (pair) => parseInt(pair, 16));
  const session = await ort.InferenceSession.create(bytes, { intraOpNumThreads: 1 });
  try {
    for (const rows of [1, 8]) {
      const a = new ort.Tensor("uint8", new Uint8Array(rows * DEPTH).fill(255), [rows, DEPTH]);
      const { y } = await session.run({ a }, ["y"]);
      if ((y!.data as Int32Array).some((value) => value !== DEPTH * 255 * 127)) return true;
    }
    return false;
  } finally {
    await session.release();
  }
}
