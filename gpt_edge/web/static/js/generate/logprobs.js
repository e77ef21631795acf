/** Log-probabilities by the model's own logits: no temperature, penalty or truncation changes them. */
import { topKIds } from "./logits.js";
/** Of token `id` after the row, with so many alternatives. */
export function tokenLogprob(row, id, nAlternatives) {
    let largest = -Infinity;
    for (const value of row)
        if (value > largest)
            largest = value;
    let sum = 0;
    for (const value of row)
        sum += Math.exp(value - largest);
    const logTotal = Math.log(sum);
    const logprob = (of) => row[of] - largest - logTotal;
    const likeliest = nAlternatives > 0 ? [...topKIds(row, nAlternatives)] : [];
    likeliest.sort((one, other) => row[other] - row[one] || one - other);
    return {
        id,
        logprob: logprob(id),
        alternatives: likeliest.map((other) => [other, logprob(other)]),
    };
}
