/** What both entry points offer beside `load`. */
export { BundleError, ContextLengthError, GPTEdgeError, NumericError, TokenizerError, } from "./errors.js";
export { Model } from "./model.js";
