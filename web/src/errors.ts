/** The errors that a caller can act on; a wrong argument is a RangeError or a TypeError. */

/** The root of the tree. `hint` says what may help. */
export class GPTEdgeError extends Error {
  readonly hint: string | null;

  constructor(message: string, hint: string | null = null) {
    super(message);
    this.name = new.target.name;
    this.hint = hint;
  }
}

/** A bundle that is missing, corrupt, newer than this version, or of a kind that does not run here. */
export class BundleError extends GPTEdgeError {}

/** A tokenizer file that is corrupt, or a text that the vocabulary cannot spell. */
export class TokenizerError extends GPTEdgeError {}

/** More tokens than the context holds. */
export class ContextLengthError extends GPTEdgeError {}

/** NaN or infinite logits. */
export class NumericError extends GPTEdgeError {}
