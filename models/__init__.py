"""The embedded bundles."""
