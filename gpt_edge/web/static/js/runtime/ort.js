/**
 * What gpt-edge needs of onnxruntime's JavaScript API, which onnxruntime-web and onnxruntime-node
 * share. The entry points hand in the one that runs.
 */
export {};
