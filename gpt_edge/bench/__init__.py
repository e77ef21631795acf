"""`gpt-edge bench`: how fast bundles prefill and decode on this machine, and how near that is to
the machine's limit.
"""
