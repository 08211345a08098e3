"""Events: what is accepted, kept, delivered, and what is left when a program ends."""
