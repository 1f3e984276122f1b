"""Pictures from arrays and plain mappings; nothing here knows the rest of the package."""
