"""How well similarities agree with people's scores."""
