"""A story in a window. A worker thread generates, the window's own thread takes the pieces from a
queue, so the window never freezes, and closing it or Stop ends the generation within one token.

    python gui_thread.py "Once upon a time"
"""

from __future__ import annotations

import argparse
import queue
import threading
from collections.abc import Callable

import gpt_edge


class StoryThread:
    """One generation in a thread of its own. `poll` and `stop` are for the GUI's thread."""

    def __init__(self, model: gpt_edge.Generator, prompt: str, max_new_tokens: int = 200) -> None:
        self._pieces: queue.Queue[str | Exception | None] = queue.Queue()
        self._cancel = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(model, prompt, max_new_tokens), daemon=True
        )
        self._thread.start()

    def _run(self, model: gpt_edge.Generator, prompt: str, max_new_tokens: int) -> None:
        try:
            stream = model.stream(
                prompt, max_new_tokens=max_new_tokens, temperature=0.8, cancel=self._cancel
            )
            for piece in stream:
                self._pieces.put(piece)
            self._pieces.put(None)
        except Exception as error:  # shown by the GUI, which alone may show anything
            self._pieces.put(error)

    def poll(self, show: Callable[[str], None]) -> bool:
        """Call `show` with what has come since the last call; False once that was all."""
        while not self._pieces.empty():
            piece = self._pieces.get()
            if piece is None:
                return False
            if isinstance(piece, Exception):
                show(f"\n{piece}")
                return False
            show(piece)
        return True

    def stop(self) -> None:
        """End the generation before its next token."""
        self._cancel.set()


def main() -> None:
    import tkinter

    parser = argparse.ArgumentParser(description="Show a story in a window while it is written.")
    parser.add_argument("prompt", nargs="?", default="Once upon a time")
    prompt = parser.parse_args().prompt
    story = StoryThread(gpt_edge.load(), prompt)
    window = tkinter.Tk()
    text = tkinter.Text(window, wrap="word")
    text.insert("end", prompt)
    text.pack(fill="both", expand=True)
    tkinter.Button(window, text="Stop", command=story.stop).pack()

    def on_timer() -> None:
        if story.poll(lambda piece: text.insert("end", piece)):
            window.after(30, on_timer)

    on_timer()
    window.mainloop()
    story.stop()


if __name__ == "__main__":
    main()
