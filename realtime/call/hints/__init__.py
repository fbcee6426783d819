"""Facts and hints that are appended to a question before the language model reads it. Pure."""
