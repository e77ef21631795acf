/** onnxruntime's packages as far as the entry points use them; `runtime/ort.ts` says what that is. */

declare module "onnxruntime-node" {
  export const Tensor: unknown;
  export const InferenceSession: unknown;
}

declare module "onnxruntime-web/wasm" {
  export const Tensor: unknown;
  export const InferenceSession: unknown;
  export const env: unknown;
}

declare module "*/ort.wasm.min.mjs" {
  export const Tensor: unknown;
  export const InferenceSession: unknown;
  export const env: unknown;
}
