"""What the apps share: the lowest Django layer. Imports no app, and inference at most."""
