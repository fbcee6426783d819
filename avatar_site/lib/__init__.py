"""What several apps share and is of none of them: the lowest Django layer. It imports no app."""
