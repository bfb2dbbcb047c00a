"""The server: an OpenAI-compatible API with attribution, and the page that is built on it (docs/server.md)."""
