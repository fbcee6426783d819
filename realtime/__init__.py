"""One live call: the socket, the turns, the reply and what is kept of it. Holds no models."""
