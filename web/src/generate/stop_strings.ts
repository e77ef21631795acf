/**
 * StopMatcher: finds stop strings in text that comes in pieces, lets none through, and holds back
 * as little as it can. Each character is looked at once per stop string (Knuth, Morris and Pratt
 * 1977).
 */

interface Stop {
  readonly text: string;
  readonly borders: readonly number[];
  matched: number; // how much of it the text so far ends with
}

/**
 * Passes text on up to the first stop string: the first is the one that is complete first; of
 * several that end together, the longest. Pieces hold whole characters, so comparing UTF-16 units
 * is comparing characters.
 */
export class StopMatcher {
  private readonly stops: Stop[];
  private held = "";
  isFound = false;

  constructor(stops: readonly string[]) {
    this.stops = stops.map((text) => ({ text, borders: bordersOf(text), matched: 0 }));
  }

  /** The text that is certain to come before any stop string; "" once one was found. */
  push(piece: string): string {
    if (this.stops.length === 0 || this.isFound) return this.isFound ? "" : piece;
    const text = this.held + piece;
    for (let index = this.held.length; index < text.length; index++) {
      const length = this.advance(text[index]!);
      if (length > 0) {
        this.isFound = true;
        this.held = "";
        return text.slice(0, index + 1 - length);
      }
    }
    const certain = text.length - Math.max(...this.stops.map((stop) => stop.matched));
    this.held = text.slice(certain);
    return text.slice(0, certain);
  }

  /** What was held back: the text has ended, so it is no stop string. */
  flush(): string {
    const rest = this.held;
    this.held = "";
    return rest;
  }

  /** Length of the longest stop string that ends with `unit`, 0 for none. */
  private advance(unit: string): number {
    let longest = 0;
    for (const stop of this.stops) {
      let matched = stop.matched;
      while (matched > 0 && stop.text[matched] !== unit) matched = stop.borders[matched - 1]!;
      if (stop.text[matched] === unit) matched += 1;
      stop.matched = matched;
      if (matched === stop.text.length) longest = Math.max(longest, matched);
    }
    return longest;
  }
}

/** For each beginning of `stop`, the length of its longest proper beginning that is also its end. */
function bordersOf(stop: string): number[] {
  const borders = new Array<number>(stop.length).fill(0);
  let length = 0;
  for (let place = 1; place < stop.length; place++) {
    while (length > 0 && stop[place] !== stop[length]) length = borders[length - 1]!;
    if (stop[place] === stop[length]) length += 1;
    borders[place] = length;
  }
  return borders;
}
