"""Facts and hints that are written beside a question before the language model reads it. Pure."""
