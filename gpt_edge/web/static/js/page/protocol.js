/** What the page and its worker say to each other, and what an engine offers the page. */
export {};
