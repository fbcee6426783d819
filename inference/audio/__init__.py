"""Audio without models: PCM, resampling, decoding, encoding, levels. Imports no engine and no Django."""
