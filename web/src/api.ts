/** What both entry points offer beside `load`. */

export type { LoadProgress, OnProgress } from "./bundle/bundle.js";
export type { GenerationDefaults, GPTConfig, Manifest, TaskSpec, TokenizerSpec } from "./bundle/manifest.js";
export type { Example, Prediction } from "./classify/classifier.js";
export type { EmbedOptions } from "./classify/embedder.js";
export type { TokenLabel } from "./classify/token_labels.js";
export {
  BundleError,
  ContextLengthError,
  GPTEdgeError,
  NumericError,
  TokenizerError,
} from "./errors.js";
export type { TokenLogprob } from "./generate/logprobs.js";
export type { SamplingParams } from "./generate/params.js";
export type { PromptOptions } from "./generate/prompt.js";
export type { Completion, FinishReason, TextStream } from "./generate/text_stream.js";
export { Model } from "./model.js";
