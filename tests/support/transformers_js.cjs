// Greedy ids of a folder's model by transformers.js: FOLDER IDS COUNT, prints a JSON array.
const path = require("node:path");
const { AutoModelForCausalLM, Tensor, env } = require("@huggingface/transformers");

async function main(folder, ids, count) {
  env.allowRemoteModels = false;
  env.localModelPath = path.dirname(folder) + path.sep;
  const model = await AutoModelForCausalLM.from_pretrained(path.basename(folder), {
    subfolder: "", // its files stand beside config.json, not below onnx/
    dtype: "fp32", // the name of the file, model.onnx, whatever the weights are
    use_external_data_format: true,
  });
  const shape = [1, ids.length];
  const result = await model.generate({
    input_ids: new Tensor("int64", BigInt64Array.from(ids.map(BigInt)), shape),
    attention_mask: new Tensor("int64", new BigInt64Array(ids.length).fill(1n), shape),
    max_new_tokens: count,
    do_sample: false,
    eos_token_id: -1,
  });
  console.log(JSON.stringify(Array.from(result.data, Number).slice(ids.length)));
}

main(process.argv[2], JSON.parse(process.argv[3]), Number(process.argv[4]));
