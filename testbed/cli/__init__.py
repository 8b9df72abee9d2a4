"""How do I call it?  The commands; what they do is in the rooms below."""
