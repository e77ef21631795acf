"""The style sheet of a report: light and dark, from a phone to a printed page. It loads nothing."""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark; --ink: #1a1c20; --soft: #5b6270; --paper: #fff;
  --raised: #f4f5f7; --line: #d9dce2;
  --mark: #ffe2a8; --part: #d6301f; --ok: #137333; --c0: #5b6270; --c1: #1f6feb; --c2: #d97706;
  --c3: #7c3aed;
  --c4: #0d9488; --c5: #be185d; --heat: 217, 48, 37; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ec; --soft: #9aa3b2; --paper: #14161a;
  --raised: #1e2127;
  --line: #343943; --mark: #6b4e00; --part: #ff8a7a; --ok: #6ddc8b; --c0: #9aa3b2; --c1: #6aa6ff;
  --c2: #f5a742;
  --c3: #b794ff; --c4: #4fd1c5; --c5: #f472b6; --heat: 255, 110, 90; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 62rem; background: var(--paper);
  color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .2em 0; }
h2 { font-size: 1.2rem; margin: 2.2em 0 .4em; }
h3 { font-size: 1rem; margin: 1.4em 0 .4em; }
p { margin: .5em 0; max-width: 46rem; }
.soft, figcaption, .legend, footer { color: var(--soft); font-size: .9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .7rem;
  margin: 1.2rem 0; }
.tile { background: var(--raised); border-radius: .6rem; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.35rem; font-weight: 600; }
.tile span { color: var(--soft); font-size: .85rem; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, .left td { text-align: left; } thead th { color: var(--soft); font-weight: 500; }
tbody th { font-weight: 400; white-space: normal; min-width: 7rem; }
tr.main th { font-weight: 600; } .heat td { padding: .3rem .6rem; text-align: center; }
.left td { white-space: normal; overflow-wrap: anywhere; }
.wrong { color: var(--part); font-weight: 600; } .good { color: var(--ok); }
figure { margin: 1rem 0; max-width: 34rem; } svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif; } svg .name { fill: var(--soft); }
svg .strong { font-weight: 600; } .grid { stroke: var(--line); stroke-width: .7; }
.axis { stroke: var(--soft); }
.line { fill: none; stroke-width: 1.8; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 50%;
  margin: 0 .35em 0 0; } .legend span { margin-right: 1.1em; white-space: nowrap; }
.dot.s0 { fill: var(--c0); } .dot.s1 { fill: var(--c1); } .dot.s2 { fill: var(--c2); }
.dot.s3 { fill: var(--c3); }
.dot.s4 { fill: var(--c4); } .dot.s5 { fill: var(--c5); }
.line.s0 { stroke: var(--c0); } .line.s1 { stroke: var(--c1); } .line.s2 { stroke: var(--c2); }
.line.s3 { stroke: var(--c3); } .line.s4 { stroke: var(--c4); } .line.s5 { stroke: var(--c5); }
.key.s0 { background: var(--c0); } .key.s1 { background: var(--c1); }
.key.s2 { background: var(--c2); }
.key.s3 { background: var(--c3); } .key.s4 { background: var(--c4); }
.key.s5 { background: var(--c5); }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .7rem; }
.sample { background: var(--raised); border-radius: .6rem; padding: .7rem .9rem; }
.sample h4 { margin: 0 0 .3rem; font-size: .85rem; color: var(--soft); font-weight: 500; }
.words { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; font-size: .95rem; }
mark { background: var(--mark); color: inherit; border-radius: .2em; }
mark.first { outline: 2px solid var(--part); }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--soft); }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: .6rem; }
@media print { body { max-width: none; } .tile, .sample { border: 1px solid var(--line); } }
"""
