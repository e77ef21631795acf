"""`gpt-edge bench`: how fast bundles read and write on this machine, and how near that is to what
the machine can do.
"""
