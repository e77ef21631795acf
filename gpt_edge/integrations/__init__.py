"""gpt-edge in other programs: thin files, each for one program, which imports it."""
