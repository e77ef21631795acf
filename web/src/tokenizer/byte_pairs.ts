/** Joining bytes by rank: the lowest rank first, the leftmost of equal ones. */

const NONE = Infinity;
const FEW = 64; // bytes up to which looking at every pair is quicker than a heap

/** The ranks of one piece of bytes, each byte being a token. */
export function joinByRank(piece: string, rankOf: ReadonlyMap<string, number>): number[] {
  const whole = rankOf.get(piece);
  if (whole !== undefined) return [whole];
  const chain = new Chain(piece, rankOf);
  if (piece.length <= FEW) chain.joinFew();
  else chain.joinMany();
  return chain.ranks();
}

/** The parts of a piece as a doubly linked list of their first bytes. */
class Chain {
  private readonly next: Int32Array;
  private readonly before: Int32Array;
  private readonly pairRank: Float64Array; // of the part that begins here and the next one

  constructor(
    private readonly piece: string,
    private readonly rankOf: ReadonlyMap<string, number>,
  ) {
    const n = piece.length;
    this.next = Int32Array.from({ length: n }, (_, at) => at + 1);
    this.before = Int32Array.from({ length: n }, (_, at) => at - 1);
    this.pairRank = new Float64Array(n);
    for (let at = 0; at < n; at++) this.pairRank[at] = this.rankAt(at);
  }

  joinFew(): void {
    for (;;) {
      let best = -1;
      for (let at = 0; at < this.piece.length; at = this.next[at]!) {
        if (this.pairRank[at]! < (best < 0 ? NONE : this.pairRank[best]!)) best = at;
      }
      if (best < 0) return;
      this.join(best);
    }
  }

  joinMany(): void {
    const heap = new PairHeap();
    for (let at = 0; at < this.piece.length; at++) heap.push(this.pairRank[at]!, at);
    for (let entry = heap.pop(); entry !== undefined; entry = heap.pop()) {
      const [rank, at] = entry;
      if (this.pairRank[at] !== rank) continue; // an older pair
      this.join(at);
      heap.push(this.pairRank[at]!, at);
      if (this.before[at]! >= 0) heap.push(this.pairRank[this.before[at]!]!, this.before[at]!);
    }
  }

  ranks(): number[] {
    const ranks: number[] = [];
    for (let at = 0; at < this.piece.length; at = this.next[at]!) {
      ranks.push(this.rankOf.get(this.piece.slice(at, this.next[at]!))!);
    }
    return ranks;
  }

  private rankAt(at: number): number {
    const middle = this.next[at]!;
    if (middle >= this.piece.length) return NONE;
    return this.rankOf.get(this.piece.slice(at, this.next[middle]!)) ?? NONE;
  }

  private join(at: number): void {
    const gone = this.next[at]!;
    this.next[at] = this.next[gone]!;
    if (this.next[at]! < this.piece.length) this.before[this.next[at]!] = at;
    this.pairRank[gone] = NONE;
    this.pairRank[at] = this.rankAt(at);
    const before = this.before[at]!;
    if (before >= 0) this.pairRank[before] = this.rankAt(before);
  }
}

/** A heap of (rank, place), the lowest rank first and of equal ones the leftmost. */
class PairHeap {
  private readonly entries: [number, number][] = [];

  push(rank: number, at: number): void {
    if (rank === NONE) return;
    const entries = this.entries;
    let place = entries.push([rank, at]) - 1;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (!isBefore(entries[place]!, entries[parent]!)) return;
      [entries[place], entries[parent]] = [entries[parent]!, entries[place]!];
      place = parent;
    }
  }

  pop(): [number, number] | undefined {
    const entries = this.entries;
    const first = entries[0];
    const last = entries.pop();
    if (first === undefined || entries.length === 0) return first;
    entries[0] = last!;
    for (let place = 0; ; ) {
      let child = 2 * place + 1;
      if (child >= entries.length) return first;
      if (child + 1 < entries.length && isBefore(entries[child + 1]!, entries[child]!)) child += 1;
      if (!isBefore(entries[child]!, entries[place]!)) return first;
      [entries[place], entries[child]] = [entries[child]!, entries[place]!];
      place = child;
    }
  }
}

function isBefore(one: [number, number], other: [number, number]): boolean {
  return one[0] < other[0] || (one[0] === other[0] && one[1] < other[1]);
}
