"""A proxy before another server: what that writes goes to the client as it is, and our copy of the model follows it."""
