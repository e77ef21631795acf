/** Model: a loaded bundle: a language model streams text, a classifier answers. */

import { Bundle, type FileReader, type OnProgress } from "./bundle/bundle.js";
import type { Manifest } from "./bundle/manifest.js";
import { type Example, predict, type Prediction } from "./classify/classifier.js";
import { embed, type EmbedOptions } from "./classify/embedder.js";
import { tag, type TokenLabel } from "./classify/token_labels.js";
import { BundleError } from "./errors.js";
import { checkedParams, paramsFromDefaults, type SamplingParams } from "./generate/params.js";
import { encodePrompt, type PromptOptions } from "./generate/prompt.js";
import { type Completion, TextStream } from "./generate/text_stream.js";
import type { Backend } from "./runtime/ort.js";
import { Session } from "./runtime/session.js";
import { Tokenizer } from "./tokenizer/tokenizer.js";

export interface LoadOptions {
  /** Called as bytes arrive, and once for each file whose hash was compared. */
  onProgress?: OnProgress;
}

export class Model {
  private constructor(
    readonly manifest: Manifest,
    readonly tokenizer: Tokenizer,
    private readonly session: Session,
  ) {}

  /** Read, check and start a bundle. Throws BundleError or TokenizerError saying what is wrong. */
  static async load(
    where: string,
    read: FileReader,
    backend: Backend,
    options: LoadOptions = {},
  ): Promise<Model> {
    const bundle = await Bundle.open(where, read, options.onProgress);
    const spec = bundle.manifest.tokenizer;
    if (spec === null) {
      throw new BundleError(`${where} has no tokenizer`, "export it with one");
    }
    const tokenizer = Tokenizer.from(spec, bundle.file(spec.file), `${where}/${spec.file}`);
    return new Model(bundle.manifest, tokenizer, await Session.start(bundle, backend));
  }

  get isClassifier(): boolean {
    return this.manifest.kind === "task";
  }

  /** What the bundle asks for, for `stream`; without it, generation is greedy. */
  get generationDefaults(): SamplingParams {
    return paramsFromDefaults(this.manifest.generation_defaults, this.tokenizer.vocabSize);
  }

  /**
   * Continue a prompt: an async iterator over pieces of text, never half a character, never a stop
   * string; the model works only while the next piece is awaited. Throws RangeError or TypeError
   * for a setting, ContextLengthError, BundleError for a classifier.
   */
  stream(prompt: string, params: SamplingParams = {}, options: PromptOptions = {}): TextStream {
    this.checkKind(false);
    const { max_new_tokens } = checkedParams(params);
    const ids = encodePrompt(prompt, this.tokenizer, this.session.config, max_new_tokens, options);
    return new TextStream(this.session, this.tokenizer, ids, params, this.endTokens);
  }

  /** The whole text. */
  complete(
    prompt: string,
    params: SamplingParams = {},
    options: PromptOptions = {},
  ): Promise<Completion> {
    return this.stream(prompt, params, options).completion();
  }

  /** Answer examples, in their order. Throws BundleError for a language model. */
  async classify(texts: readonly Example[]): Promise<Prediction[]> {
    this.checkKind(true);
    const found: Prediction[] = [];
    for (const example of texts) {
      found.push(await predict(example, this.manifest.task!, this.session, this.tokenizer));
    }
    return found;
  }

  /**
   * Label every token of texts, in their order. Throws BundleError for a language model, RangeError
   * for one that labels texts.
   */
  async tag(texts: readonly string[]): Promise<TokenLabel[][]> {
    this.checkKind(true);
    const found: TokenLabel[][] = [];
    for (const text of texts) {
      found.push(await tag(text, this.manifest.task!, this.session, this.tokenizer));
    }
    return found;
  }

  /** Vectors of texts, in their order, of any model. */
  async embed(texts: readonly string[], options: EmbedOptions = {}): Promise<Float32Array[]> {
    const task = this.manifest.task ?? null;
    const found: Float32Array[] = [];
    for (const text of texts) {
      found.push(await embed(text, task, this.session, this.tokenizer, options));
    }
    return found;
  }

  /** Let go of the weights. */
  close(): Promise<void> {
    return this.session.close();
  }

  private get endTokens(): number[] {
    const ids = this.manifest.generation_defaults?.eos_token_id ?? [];
    const own = this.tokenizer.endToken;
    return [...(typeof ids === "number" ? [ids] : ids), ...(own === null ? [] : [own])];
  }

  private checkKind(isClassifier: boolean): void {
    if (this.isClassifier === isClassifier) return;
    throw new BundleError(
      isClassifier
        ? `${this.manifest.name} is a language model: it has no task to answer`
        : `${this.manifest.name} is a classifier: it generates nothing`,
      isClassifier ? "use stream" : "use classify",
    );
  }
}
